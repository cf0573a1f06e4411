package fans

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// state is a ticket's state.
type state uint8

const (
	unknown state = iota
	scheduled
	waiting
	admitted
	active
	ended
	expired
	left
	closed
)

var stateNames = [...]string{"unknown", "scheduled", "waiting", "admitted", "active", "ended", "expired", "left", "closed"}

func (s state) String() string { return stateNames[s] }

// out reports whether a ticket in this state is out of the line for good.
func (s state) out() bool { return s >= ended }

// status is what a crowd looks at in the status that a fan is told.
type status struct {
	event      []byte // type; only frames of a WebSocket have it
	state      state
	position   uint64
	ahead      uint64
	hasAhead   bool
	claimBy    time.Time
	now        time.Time
	generation []byte
	entry      uint64
}

var errNotStatus = errors.New("not a status")

// read reads a status document. Its slices are those of data.
func (s *status) read(data []byte) error {
	*s = status{}
	var positions, seqs int
	err := eachMember(data, func(name, value []byte) error {
		var err error
		switch string(name) {
		case "type":
			s.event, err = unquote(value)
		case "state":
			var text []byte
			if text, err = unquote(value); err == nil {
				err = s.state.read(text)
			}
		case "position":
			positions++
			s.position, err = parseUint(value)
		case "ahead":
			if s.hasAhead = string(value) != "null"; s.hasAhead {
				s.ahead, err = parseUint(value)
			}
		case "claimBy":
			err = readTime(&s.claimBy, value)
		case "now":
			err = readTime(&s.now, value)
		case "seq":
			seqs++
			err = s.readSeq(value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	})
	if err == nil && (s.state == unknown || positions != 1 || seqs != 1 || s.now.IsZero()) {
		err = errors.New("a member is missing")
	}
	if err != nil {
		return fmt.Errorf("%w: %w: %.300q", errNotStatus, err, data)
	}
	return nil
}

func (s *state) read(text []byte) error {
	for i, name := range stateNames {
		if i > 0 && string(text) == name {
			*s = state(i)
			return nil
		}
	}
	return errors.New("no such state")
}

// readSeq reads "generation.entry".
func (s *status) readSeq(value []byte) error {
	text, err := unquote(value)
	if err != nil {
		return err
	}
	dot := bytes.LastIndexByte(text, '.')
	if dot < 1 {
		return errors.New("not generation.entry")
	}
	s.generation = text[:dot]
	s.entry, err = parseUint(text[dot+1:])
	return err
}

func readTime(t *time.Time, value []byte) error {
	text, err := unquote(value)
	if err != nil {
		return err
	}
	return t.UnmarshalText(text)
}

func parseUint(b []byte) (uint64, error) { return strconv.ParseUint(string(b), 10, 64) }

// unquote takes the quotes off a string; none that a crowd reads has anything escaped in it.
func unquote(value []byte) ([]byte, error) {
	if len(value) < 2 || value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
		return nil, errors.New("not a plain string")
	}
	return value[1 : len(value)-1], nil
}

var errNotObject = errors.New("not a JSON object")

// eachMember calls f for each member of a JSON object without blanks, as edges write it; the value
// is as it stands there. It reads a status in a fraction of the time that encoding/json needs, which
// would otherwise be most of what a crowd costs the machine.
func eachMember(data []byte, f func(name, value []byte) error) error {
	if len(data) < 2 || data[0] != '{' || data[len(data)-1] != '}' {
		return errNotObject
	}
	rest := data[1 : len(data)-1]
	for len(rest) > 0 {
		end := valueEnd(rest)
		if end < 2 || rest[0] != '"' || end >= len(rest) || rest[end] != ':' {
			return errNotObject
		}
		name := rest[1 : end-1]
		rest = rest[end+1:]
		end = valueEnd(rest)
		if end < 1 {
			return errNotObject
		}
		if err := f(name, rest[:end]); err != nil {
			return err
		}
		if end == len(rest) {
			return nil
		}
		if rest[end] != ',' || end+1 == len(rest) {
			return errNotObject
		}
		rest = rest[end+1:]
	}
	return nil
}

// valueEnd is where the value ends with which data begins; -1 where it does not end.
func valueEnd(data []byte) int {
	depth := 0
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '"':
			for i++; i < len(data) && data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			if i >= len(data) {
				return -1
			}
			if depth == 0 {
				return i + 1
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth < 0 {
				return -1
			}
			if depth == 0 {
				return i + 1
			}
		case ',', ':':
			if depth == 0 {
				return i
			}
		}
	}
	if depth > 0 {
		return -1
	}
	return len(data)
}
