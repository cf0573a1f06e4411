package queue

import (
	"fmt"
	"strconv"
	"strings"
)

// Positions is an ascending list of positions. As text, in the log and on the wire, runs are
// folded: "1-5,9".
type Positions []uint64

// maxUnfolded bounds how many positions a text may unfold to, so that a damaged or hostile one
// cannot exhaust the memory.
const maxUnfolded = 10_000_000

// MarshalText folds runs.
func (p Positions) MarshalText() ([]byte, error) {
	var b []byte
	for i := 0; i < len(p); {
		j := i
		for j+1 < len(p) && p[j+1] == p[j]+1 {
			j++
		}
		if len(b) > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, p[i], 10)
		if j > i {
			b = append(b, '-')
			b = strconv.AppendUint(b, p[j], 10)
		}
		i = j + 1
	}
	return b, nil
}

// UnmarshalText unfolds runs; it refuses anything but ascending positions from 1.
func (p *Positions) UnmarshalText(text []byte) error {
	*p = nil
	if len(text) == 0 {
		return nil
	}
	var last uint64
	for part := range strings.SplitSeq(string(text), ",") {
		from, to, isRun := strings.Cut(part, "-")
		first, err := strconv.ParseUint(from, 10, 63)
		if err != nil {
			return fmt.Errorf("parse positions: %q", part)
		}
		end := first
		if isRun {
			if end, err = strconv.ParseUint(to, 10, 63); err != nil {
				return fmt.Errorf("parse positions: %q", part)
			}
		}
		if first <= last || end < first || end-first >= maxUnfolded-uint64(len(*p)) {
			return fmt.Errorf("parse positions: %q is out of order", part)
		}
		for n := first; n <= end; n++ {
			*p = append(*p, n)
		}
		last = end
	}
	return nil
}
