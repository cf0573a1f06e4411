package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// droppedMetric counts the live connections of an edge that ended, by reason.
const droppedMetric = "waitingroom_edge_live_dropped_total"

// ended is how many live connections ended, for whatever reason.
func ended(ctx context.Context, edges []edge) (float64, error) {
	sums, err := sumDropped(ctx, edges)
	all := 0.0
	for _, n := range sums {
		all += n
	}
	return all, err
}

// dropped reads from the metrics of edges how many live connections ended there, by reason.
func dropped(ctx context.Context, edges []edge) ([]observation, error) {
	sums, err := sumDropped(ctx, edges)
	return endings(sums), err
}

// endings lists sums by reason.
func endings(sums map[string]float64) []observation {
	var list []observation
	for _, reason := range slices.Sorted(maps.Keys(sums)) {
		list = append(list, observation{"ended: " + reason, sums[reason], "connections"})
	}
	return list
}

func sumDropped(ctx context.Context, edges []edge) (map[string]float64, error) {
	sums := map[string]float64{}
	for _, e := range edges {
		status, text, err := ask(ctx, http.MethodGet, "http://"+e.admin+"/metrics", "", nil)
		if err != nil || status != http.StatusOK {
			return nil, fmt.Errorf("read metrics: status %d: %w", status, err)
		}
		if err := addDropped(sums, text); err != nil {
			return nil, err
		}
	}
	return sums, nil
}

// addDropped adds up the lines of droppedMetric that count something.
func addDropped(sums map[string]float64, text []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		rest, found := strings.CutPrefix(lines.Text(), droppedMetric+`{reason="`)
		reason, count, closed := strings.Cut(rest, `"} `)
		if !found || !closed {
			continue
		}
		n, err := strconv.ParseFloat(count, 64)
		if err != nil {
			return fmt.Errorf("read metrics: %w", err)
		}
		if n > 0 {
			sums[reason] += n
		}
	}
	return lines.Err()
}
