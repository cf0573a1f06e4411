package wire

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

const (
	// MaxFrame bounds one line of the feed, in bytes: the snapshot of a queue that has issued
	// tens of millions of positions fits.
	MaxFrame = 64 << 20
	// FeedSilence is how long a feed may say nothing before the edge gives it up.
	FeedSilence = 5 * HeartbeatEvery
)

// ErrSilent says that a feed was given up because its heartbeat stayed away.
var ErrSilent = errors.New("the feed fell silent")

// Feed connects to an origin and calls handle for each frame, from one goroutine, until ctx ends,
// handle returns an error or the connection breaks. It always returns an error, and the next call
// begins with the origin after the one that broke. edge is the id under which the edge sends its
// batches.
func (c *Client) Feed(ctx context.Context, edge string, handle func(Frame) error) error {
	if err := c.Check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(FeedSilence, func() { cancel(ErrSilent) })
	defer silence.Stop()

	index := c.current.Load()
	address := c.bases[index] + PathFeed + "?edge=" + url.QueryEscape(edge)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("read feed: %w", err)
	}
	answer, err := c.send(r)
	if err != nil {
		c.moveOn(index)
		return fmt.Errorf("read feed: %w", because(ctx, err))
	}
	defer answer.Body.Close()
	lines := bufio.NewReaderSize(answer.Body, 64<<10)
	var line []byte
	for {
		line, err = readLine(lines, line[:0], silence)
		if err != nil {
			c.moveOn(index)
			return fmt.Errorf("read feed: %w", because(ctx, err))
		}
		var frame Frame
		if err := json.Unmarshal(line, &frame); err != nil {
			c.moveOn(index)
			return fmt.Errorf("read feed: decode frame: %w", err)
		}
		if err := handle(frame); err != nil {
			return fmt.Errorf("read feed: %w", err)
		}
		// What handle needed for itself is not the origin's silence.
		silence.Reset(FeedSilence)
	}
}

// because prefers the reason for which the context was ended to the error that this caused.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), ErrUnavailable)
	}
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	var refusal *Error
	if errors.As(err, &refusal) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// readLine appends the next line to buf, without its end; each piece of it counts as a sign of
// life.
func readLine(r *bufio.Reader, buf []byte, silence *time.Timer) ([]byte, error) {
	for {
		piece, err := r.ReadSlice('\n')
		if len(buf)+len(piece) > MaxFrame {
			return nil, fmt.Errorf("a frame is longer than %d bytes", MaxFrame)
		}
		buf = append(buf, piece...)
		switch {
		case err == nil:
			return buf[:len(buf)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			silence.Reset(FeedSilence)
		default:
			return nil, err
		}
	}
}
