package redis

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
)

// parseEntry reads an entry of the log: its number is the id of the stream's item, and the names
// of the fields are single letters. What it does not know it refuses, because a reader that passed
// something over would hold a wrong view for good.
func parseEntry(item goredis.XMessage) (queue.Entry, error) {
	entry, err := decodeEntry(item)
	if err != nil {
		return queue.Entry{}, fmt.Errorf("parse log entry: %w", err)
	}
	return entry, nil
}

func decodeEntry(item goredis.XMessage) (queue.Entry, error) {
	var e queue.Entry
	number, found := strings.CutSuffix(item.ID, "-0")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil || !found {
		return e, errors.New("its id is no number")
	}
	e.Number = n
	for name, value := range item.Values {
		text, ok := value.(string)
		if !ok {
			return e, fmt.Errorf("field %q is no text", name)
		}
		if err := setField(&e, name, text); err != nil {
			return e, fmt.Errorf("field %q: %w", name, err)
		}
	}
	switch e.Kind {
	case queue.EntryJoined, queue.EntryOffered, queue.EntryClaimed, queue.EntryLapsed, queue.EntryWithdrawn,
		queue.EntryProlonged, queue.EntryDone, queue.EntrySettings, queue.EntryTurn, queue.EntryEstimate, queue.EntryGeneration:
		return e, nil
	}
	return e, errors.New("its kind is unknown")
}

func setField(e *queue.Entry, name, text string) error {
	var n int64
	switch name {
	case "t", "i", "w", "f", "a", "u", "n":
		var err error
		if n, err = strconv.ParseInt(text, 10, 64); err != nil || n < 0 {
			return errors.New("no number")
		}
	}
	switch name {
	case "k":
		e.Kind = queue.Kind(text)
	case "t":
		e.At = fromMillis(n)
	case "p":
		return e.Positions.UnmarshalText([]byte(text))
	case "b":
		return setBitmaps(e, text)
	case "i":
		e.Issued = uint64(n)
	case "w":
		e.Watermark = uint64(n)
	case "f":
		if n > int64(queue.Left) {
			return errors.New("no fate")
		}
		e.Fate = queue.Fate(n)
	case "r":
		e.Reason = text
	case "s":
		e.Session = text
	case "c":
		e.Chain = text
	case "a":
		e.Since = fromMillis(n)
	case "u":
		e.Until = fromMillis(n)
	case "n":
		e.Turn = uint64(n)
	case "j":
		settings := queue.DefaultSettings()
		if err := json.Unmarshal([]byte(text), &settings); err != nil {
			return errors.New("no settings")
		}
		e.Settings = &settings
	case "e":
		var err error
		e.Estimate, err = parseEstimate(text)
		return err
	default:
		return errors.New("it is unknown")
	}
	return nil
}

// marshalEstimate is the text of an estimate, in the log and in meta; "" where there is none.
func marshalEstimate(estimate *queue.Estimate) (string, error) {
	if estimate == nil {
		return "", nil
	}
	text, err := json.Marshal(estimate)
	if err != nil {
		return "", fmt.Errorf("encode estimate: %w", err)
	}
	return string(text), nil
}

func parseEstimate(text string) (*queue.Estimate, error) {
	if text == "" {
		return nil, nil
	}
	var estimate queue.Estimate
	if err := json.Unmarshal([]byte(text), &estimate); err != nil {
		return nil, errors.New("no estimate")
	}
	return &estimate, nil
}

// setBitmaps reads the pieces of bitmaps with which a closed turn tells of many: the position of the
// first bit, the number of bytes, and the bytes.
func setBitmaps(e *queue.Entry, text string) error {
	bad := errors.New("no bitmaps")
	for text != "" {
		first, rest, _ := strings.Cut(text, ":")
		length, bytes, found := strings.Cut(rest, ":")
		base, err1 := strconv.ParseUint(first, 10, 53)
		n, err2 := strconv.ParseUint(length, 10, 31)
		if !found || err1 != nil || err2 != nil || base == 0 || n > uint64(len(bytes)) {
			return bad
		}
		if last := len(e.Positions) - 1; last >= 0 && base <= e.Positions[last] {
			return bad
		}
		e.Positions = appendBits(e.Positions, base, bytes[:n])
		text = bytes[n:]
	}
	return nil
}
