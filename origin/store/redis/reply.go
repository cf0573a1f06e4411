package redis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// reply reads what a script answered, element by element. The first element that is not what it
// should be is kept as err, and everything after it is zero.
type reply struct {
	ack   store.Ack
	shape shape
	rest  []any
	err   error
}

func (r *reply) fail(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("read script's answer: %w", err)
	}
	r.rest = nil
}

func (r *reply) next() any {
	if len(r.rest) == 0 {
		r.fail(fmt.Errorf("it is too short"))
		return nil
	}
	v := r.rest[0]
	r.rest = r.rest[1:]
	return v
}

func (r *reply) text() string {
	switch v := r.next().(type) {
	case string:
		return v
	case nil:
		return ""
	default:
		r.fail(fmt.Errorf("%T instead of text", v))
		return ""
	}
}

func (r *reply) int() int64 {
	switch v := r.next().(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			r.fail(err)
		}
		return n
	default:
		r.fail(fmt.Errorf("%T instead of a number", v))
		return 0
	}
}

func (r *reply) uint() uint64 {
	n := r.int()
	if n < 0 {
		r.fail(fmt.Errorf("%d is negative", n))
		return 0
	}
	return uint64(n)
}

func (r *reply) time() time.Time { return fromMillis(r.int()) }

func (r *reply) list() []any {
	v, ok := r.next().([]any)
	if !ok {
		r.fail(fmt.Errorf("no list where one should be"))
	}
	return v
}

// texts reads a list of texts.
func (r *reply) texts() []string {
	var texts []string
	for _, v := range r.list() {
		text, ok := v.(string)
		if !ok {
			r.fail(fmt.Errorf("%T instead of text", v))
			return nil
		}
		texts = append(texts, text)
	}
	return texts
}

// members reads the positions that are members of a set, in whatever order they come.
func (r *reply) members() queue.Positions {
	var list queue.Positions
	for _, text := range r.texts() {
		position, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			r.fail(err)
			return nil
		}
		list = append(list, position)
	}
	slices.Sort(list)
	return list
}

// positions reads folded lists with a blank between them.
func (r *reply) positions(lists ...*queue.Positions) {
	texts := strings.Split(r.text(), " ")
	if len(texts) != len(lists) {
		r.fail(fmt.Errorf("%d lists instead of %d", len(texts), len(lists)))
		return
	}
	for i, list := range lists {
		if err := list.UnmarshalText([]byte(texts[i])); err != nil {
			r.fail(err)
		}
	}
}

// parsePages reads the pages that a script asked for.
func parsePages(text string) ([]uint64, error) {
	if text == "" {
		return nil, nil
	}
	var pages []uint64
	for field := range strings.SplitSeq(text, ",") {
		page, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("parse pages: %w", err)
		}
		pages = append(pages, page)
	}
	return pages, nil
}
