// Package hub holds an edge's live connections, WebSocket and Server-Sent Events alike, and tells
// each of them what becomes of its fan. It knows nothing of queues: the edge decides whom a change
// concerns and renders what a connection is told; the hub knows who is connected, and writes.
//
// How an event travels:
//
//  1. The edge applies an entry of the feed and calls the queue's Line: Tell for the positions that
//     the entry names, TellAll when it concerns everybody, Advance when the line has moved. A Line
//     keeps its connections in blocks of 1,024 positions and skips a block in which nobody can have
//     moved far enough, so that this costs by blocks and by who must hear (line.go, advance.go).
//  2. Whoever must hear is marked and put into the hub's queue, once: a mark is a bit, and marking
//     neither writes nor waits. So the feed is never held up by a slow reader (hub.go).
//  3. A worker takes the connection from the queue, asks the edge's Teller for the event, which is
//     computed from the newest state at that moment, and writes it without waiting (outbox.go,
//     socket.go). Hence the outbox of a connection is the mark and what is left of one write:
//     the newest status takes the place of older ones by construction.
//  4. What the kernel does not take at once goes to a goroutine for that one connection, with a
//     deadline. Whoever does not read in time is dropped, with a reason from a closed set that is
//     counted (metrics.go).
//
// Reading costs next to nothing while nobody sends: a goroutine with the smallest stack waits until
// there is something to read. Only then are the frames read, by a websocket.Conn that is borrowed
// for it (reader.go). Sweep, once a second, does all that falls due with time (sweep.go).
//
// Locks are taken in this order: Conn.mu, Line.mu, Hub.mu, and the queue's. Marking takes none of
// the first three, so it can be done under any of them.
package hub
