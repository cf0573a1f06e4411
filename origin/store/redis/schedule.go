package redis

import (
	"context"
	"fmt"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"waitingroom/origin/queue"
)

// Remind implements store.Schedule.
func (s *Store) Remind(ctx context.Context, id queue.ID, at time.Time) error {
	err := s.simple(ctx, remindScript, []string{scheduleKey}, string(id), millis(at))
	if err != nil {
		return fmt.Errorf("remind of queue: %w", err)
	}
	return nil
}

// Due implements store.Schedule.
func (s *Store) Due(ctx context.Context, now time.Time, limit int) ([]queue.ID, error) {
	if limit <= 0 {
		return nil, nil
	}
	var members []string
	err := s.try(ctx, func(ctx context.Context) (err error) {
		members, err = s.client.ZRangeArgs(ctx, goredis.ZRangeArgs{
			Key: scheduleKey, ByScore: true, Start: "-inf", Stop: strconv.FormatInt(millis(now), 10), Count: int64(limit),
		}).Result()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read schedule: %w", err)
	}
	ids := make([]queue.ID, len(members))
	for i, member := range members {
		ids[i] = queue.ID(member)
	}
	return ids, nil
}

// Settle implements store.Schedule.
func (s *Store) Settle(ctx context.Context, id queue.ID, now time.Time) error {
	err := s.simple(ctx, settleScript, []string{scheduleKey}, string(id), millis(now))
	if err != nil {
		return fmt.Errorf("settle reminder: %w", err)
	}
	return nil
}
