package fans

import (
	"fmt"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
)

// mostSamples is how much of what is wrong is told in words.
const mostSamples = 5

// NewHistogram makes one as they are in reports: microseconds up to an hour, three digits.
func NewHistogram() *hdr.Histogram { return hdr.New(1, int64(time.Hour/time.Microsecond), 3) }

// tally gathers a report. The crowd's loop owns it.
type tally struct {
	report                Report
	told, offers, closing *hdr.Histogram
}

func newTally() *tally {
	return &tally{
		report: Report{Ticks: map[int64]int{}, Ended: map[string]int{}},
		told:   NewHistogram(), offers: NewHistogram(), closing: NewHistogram(),
	}
}

// record notes a time. Clocks of two processes read the same machine's time, but one of them goes
// by what the other said some time ago, so that it can be off by a little: less than nothing is none.
func record(h *hdr.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(d.Microseconds(), 0), h.HighestTrackableValue()))
}

// wrong notes what must never be.
func (t *tally) wrong(format string, args ...any) {
	t.report.Wrong++
	if len(t.report.Samples) < mostSamples {
		t.report.Samples = append(t.report.Samples, fmt.Sprintf(format, args...))
	}
}

// take returns the report, but for what is as of now, and begins the next one.
func (t *tally) take() (Report, error) {
	r := t.report
	for _, h := range []struct {
		from *hdr.Histogram
		to   *[]byte
	}{{t.told, &r.Told}, {t.offers, &r.Offers}, {t.closing, &r.Closing}} {
		encoded, err := h.from.Encode(hdr.V2CompressedEncodingCookieBase)
		if err != nil {
			return Report{}, fmt.Errorf("encode histogram: %w", err)
		}
		*h.to = encoded
	}
	*t = *newTally()
	return r, nil
}
