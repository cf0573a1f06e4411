package main

import "waitingroom/bench/plot"

// plot draws the estimate's quality by tenth of the line as SVG: how often the P50 and the P90
// hold, with the budget as bands, and the ratio of P90 to P50; on the left for calm runs, on the
// right for the others.
func (s *summary) plot() string {
	const caption = "tenth of the line in which the fan stood when told, 1 is the front"
	across := plot.Axis{Least: 0.5, Most: tenths + 0.5, Format: "%.0f"}
	for tenth := 1; tenth <= tenths; tenth++ {
		across.Marks = append(across.Marks, float64(tenth))
	}
	d := plot.New(2, 2)
	for i, e := range []*estimateReport{&s.Calm, &s.Disturbed} {
		title := []string{"without", "with"}[i] + " outage, pause, retunes and sell-out"
		p := d.Panel(i, 0, "estimates that held: "+title, caption, across,
			plot.Axis{Most: 1, Marks: []float64{0, 0.2, 0.4, 0.6, 0.8, 1}, Format: "%.1f"})
		p.Band(least50, most50)
		p.Band(least90, most90)
		p.Line("P50", "#1f5fa8", e.points(func(t tenthReport) float64 { return t.P50 }))
		p.Line("P90", "#b3401f", e.points(func(t tenthReport) float64 { return t.P90 }))

		p = d.Panel(i, 1, "in the median, to P50: "+title, caption, across,
			plot.Axis{Most: 4, Marks: []float64{0, 1, 2, 3, 4}, Format: "%.0f"})
		p.Band(0, mostSpread)
		p.Line("P90", "#b3401f", e.points(func(t tenthReport) float64 { return t.Spread }))
		p.Line("came", "#444444", e.points(func(t tenthReport) float64 { return t.Came }))
	}
	return d.SVG()
}

// points are the values of the tenths in which anybody was told anything.
func (e *estimateReport) points(value func(tenthReport) float64) []plot.Point {
	var points []plot.Point
	for _, t := range e.Tenths {
		if t.Told > 0 {
			points = append(points, plot.Point{X: float64(t.Tenth), Y: value(t)})
		}
	}
	return points
}
