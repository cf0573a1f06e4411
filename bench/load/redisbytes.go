package main

import (
	"context"
	"fmt"
)

// runRedisBytes lets a crowd join and wait for a hold, once without and once with user ids. What is
// counted is all that Redis has in use afterwards beyond what the empty queue took: the turns that
// are kept, the log, and the batches that could be asked for again.
func runRedisBytes(ctx context.Context, l *lab) (measured, error) {
	var m measured
	for _, users := range []bool{false, true} {
		bytes, err := bytesPerFan(ctx, l, users)
		if err != nil {
			return measured{}, err
		}
		l.progress(fmt.Sprintf("%.2f bytes a fan", bytes))
		m.values = append(m.values, bytes)
	}
	return m, nil
}

func bytesPerFan(ctx context.Context, l *lab, users bool) (float64, error) {
	c, err := newCrowd(ctx, l, 0)
	if err != nil {
		return 0, err
	}
	defer c.close()
	before, err := info(ctx, c.client, "memory", "used_memory")
	if err != nil {
		return 0, err
	}
	l.progress(fmt.Sprintf("joining %d fans", l.sizes.storeFans))
	if err := c.join(l.sizes.storeFans, users); err != nil {
		return 0, err
	}
	if err := c.passHold(l); err != nil {
		return 0, err
	}
	after, err := info(ctx, c.client, "memory", "used_memory")
	if err != nil {
		return 0, err
	}
	return float64(after-before) / float64(l.sizes.storeFans), nil
}
