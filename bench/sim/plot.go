package main

import (
	"fmt"
	"strings"
)

// Sizes of the plot, in pixels.
const (
	panelWidth, panelHeight = 420, 220
	marginLeft, marginTop   = 56, 44
	panelGap                = 70
)

// plot draws the estimate's quality by tenth of the line as SVG: how often the P50 and the P90
// hold, with the budget as bands, and the ratio of P90 to P50; on the left for calm runs, on the
// right for the others.
func (s *summary) plot() string {
	width := marginLeft + 2*panelWidth + panelGap + 20
	height := marginTop + 2*(panelHeight+panelGap)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	for i, e := range []*estimateReport{&s.Calm, &s.Disturbed} {
		x := marginLeft + i*(panelWidth+panelGap)
		title := []string{"without", "with"}[i] + " outage, pause, retunes and sell-out"
		p := panel{&b, x, marginTop, 1}
		p.frame("estimates that held: "+title, []float64{0, 0.2, 0.4, 0.6, 0.8, 1}, "%.1f")
		p.band(least50, most50)
		p.band(least90, most90)
		p.line(e.Tenths, "#1f5fa8", "P50", func(t tenthReport) float64 { return t.P50 })
		p.line(e.Tenths, "#b3401f", "P90", func(t tenthReport) float64 { return t.P90 })

		p = panel{&b, x, marginTop + panelHeight + panelGap, 4}
		p.frame("in the median, to P50: "+title, []float64{0, 1, 2, 3, 4}, "%.0f")
		p.band(0, mostSpread)
		p.line(e.Tenths, "#b3401f", "P90", func(t tenthReport) float64 { return t.Spread })
		p.line(e.Tenths, "#444444", "came", func(t tenthReport) float64 { return t.Came })
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// panel is one diagram: tenths of the line across, values from 0 to most upwards.
type panel struct {
	out  *strings.Builder
	x, y int
	most float64
}

func (p *panel) atX(tenth int) float64 {
	return float64(p.x) + (float64(tenth)-0.5)*panelWidth/tenths
}

func (p *panel) atY(value float64) float64 {
	return float64(p.y) + panelHeight*(1-min(value, p.most)/p.most)
}

func (p *panel) frame(title string, marks []float64, format string) {
	fmt.Fprintf(p.out, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", p.x, p.y-14, title)
	fmt.Fprintf(p.out, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#888"/>`+"\n", p.x, p.y, panelWidth, panelHeight)
	for _, m := range marks {
		fmt.Fprintf(p.out, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", p.x, p.x+panelWidth, p.atY(m), p.atY(m))
		fmt.Fprintf(p.out, `<text x="%d" y="%.1f" text-anchor="end">`+format+"</text>\n", p.x-6, p.atY(m)+4, m)
	}
	for tenth := 1; tenth <= tenths; tenth++ {
		fmt.Fprintf(p.out, `<text x="%.1f" y="%d" text-anchor="middle">%d</text>`+"\n", p.atX(tenth), p.y+panelHeight+16, tenth)
	}
	fmt.Fprintf(p.out, `<text x="%d" y="%d" text-anchor="middle">tenth of the line in which the fan stood when told, 1 is the front</text>`+"\n",
		p.x+panelWidth/2, p.y+panelHeight+34)
}

// band shades where the budget wants the values.
func (p *panel) band(from, to float64) {
	fmt.Fprintf(p.out, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="#3a9d5d" fill-opacity="0.15"/>`+"\n",
		p.x, p.atY(to), panelWidth, p.atY(from)-p.atY(to))
}

// line joins the values of the tenths in which anybody was told anything.
func (p *panel) line(list []tenthReport, colour, name string, value func(tenthReport) float64) {
	var points []string
	last := 0.0
	for _, t := range list {
		if t.Told == 0 {
			continue
		}
		last = p.atY(value(t))
		points = append(points, fmt.Sprintf("%.1f,%.1f", p.atX(t.Tenth), last))
		fmt.Fprintf(p.out, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", p.atX(t.Tenth), last, colour)
	}
	if points == nil {
		return
	}
	fmt.Fprintf(p.out, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), colour)
	fmt.Fprintf(p.out, `<text x="%d" y="%.1f" fill="%s">%s</text>`+"\n", p.x+panelWidth+4, last+4, colour, name)
}
