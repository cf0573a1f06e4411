// Package edge is the part of the waiting room that fans and shops talk to. Edges are many and
// stateless: each one signs and checks tickets, answers polls from what the origin's feed tells,
// gathers joins and sightings into batches, and validates session tokens for backends. An edge
// decides nothing about the line; positions, offers and sessions come from the origin alone.
package edge
