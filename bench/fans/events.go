package fans

import (
	"bytes"
	"errors"
	"strconv"
	"time"
)

// longestEvent is far above any status.
const longestEvent = 16 << 10

var (
	errLongEvent = errors.New("an event is too long")
	errBadChunk  = errors.New("a chunk is malformed")
)

// event is one of a stream (WHATWG HTML, section 9.2).
type event struct {
	name, data, id []byte
	retry          time.Duration // 0 where it says nothing
	comment        bool
	size           int // with the blank line that ends it; 0 while data does not hold all of it
}

// parseEvent reads the event with which data begins. Its data is one line, as edges write it.
func parseEvent(data []byte) (event, error) {
	var e event
	for at := 0; ; {
		line, next := cutLine(data[at:])
		if next == 0 {
			if len(data) > longestEvent {
				return event{}, errLongEvent
			}
			return event{}, nil
		}
		at += next
		if len(line) == 0 {
			e.size = at
			return e, nil
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "":
			e.comment = true
		case "event":
			e.name = value
		case "data":
			if e.data != nil {
				return event{}, errors.New("an event has two lines of data, which no edge sends")
			}
			e.data = value
		case "id":
			e.id = value
		case "retry":
			n, err := strconv.ParseUint(string(value), 10, 31)
			if err != nil {
				return event{}, errors.New("retry is not a number")
			}
			e.retry = time.Duration(n) * time.Millisecond
		}
	}
}

// cutLine cuts the first line off, which ends with LF, CR or both; next is 0 while it has not ended.
func cutLine(data []byte) (line []byte, next int) {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0:
		return nil, 0
	case data[i] == '\n':
		return data[:i], i + 1
	case i+1 == len(data): // whether an LF follows is not known yet
		return nil, 0
	case data[i+1] == '\n':
		return data[:i], i + 2
	}
	return data[:i], i + 1
}

// chunks takes a body apart that comes in chunks (RFC 9112, section 7.1).
type chunks struct {
	left int32 // bytes of the running chunk that are still to come, with the line's end behind it
	last bool  // the chunk of no bytes was seen
}

// longestChunkLine is the longest line that says how long a chunk is.
const longestChunkLine = 64

// next takes what can be taken of the data: content is the next piece of the body, size what was
// used up. Both are zero while more is needed.
func (c *chunks) next(data []byte) (content []byte, size int, err error) {
	if c.left == 0 && !c.last {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			if len(data) > longestChunkLine {
				return nil, 0, errBadChunk
			}
			return nil, 0, nil
		}
		line, _, _ := bytes.Cut(bytes.TrimSuffix(data[:end], []byte("\r")), []byte(";"))
		n, err := strconv.ParseUint(string(line), 16, 24)
		if err != nil {
			return nil, 0, errBadChunk
		}
		c.left, c.last = int32(n)+2, n == 0
		return nil, end + 1, nil
	}
	n := min(int(c.left), len(data))
	body := max(min(n, int(c.left)-2), 0)
	c.left -= int32(n)
	return data[:body], n, nil
}
