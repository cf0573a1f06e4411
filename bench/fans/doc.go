// Package fans is a crowd of fans who watch the line over live connections, for benchmarks: many
// thousand WebSockets and streams of events in one process, at a small part of what they cost the
// edges that are measured. They join, watch, claim, buy and come back as the waiting page does; and
// they look at everything that they are told.
//
// A crowd runs in a process of its own (Serve), because a process may open only so many files and a
// source address has only so many ports. The benchmark starts as many as it needs (Start) and tells
// each of them what to do through calls over its standard input and output.
package fans
