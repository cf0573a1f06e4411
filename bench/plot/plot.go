// Package plot draws what the benchmarks and the simulation measured, as SVG: panels of lines side by
// side and one below the other, with the budget as a band.
package plot

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of a drawing, in pixels.
const (
	panelWidth, panelHeight = 420, 220
	marginLeft, marginTop   = 56, 44
	panelGap                = 70
	marginRight             = 40 // for the names of lines
)

// Drawing is a grid of panels.
type Drawing struct{ out strings.Builder }

// New begins a drawing of so many panels beside and below each other.
func New(columns, rows int) *Drawing {
	width := marginLeft + columns*panelWidth + (columns-1)*panelGap + marginRight
	height := marginTop + rows*(panelHeight+panelGap)
	d := &Drawing{}
	fmt.Fprintf(&d.out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, height, width, height)
	fmt.Fprintf(&d.out, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	return d
}

// SVG ends the drawing. Nothing can be added afterwards.
func (d *Drawing) SVG() string {
	d.out.WriteString("</svg>\n")
	return d.out.String()
}

// Axis is one of a panel's two, with its marks.
type Axis struct {
	Least, Most float64
	Marks       []float64
	Format      string // of the marks, for fmt
}

// share is where a value lies on the axis, from 0 to 1; what lies beyond it is put at its end.
func (a Axis) share(value float64) float64 {
	return (min(max(value, a.Least), a.Most) - a.Least) / (a.Most - a.Least)
}

// Panel is one diagram.
type Panel struct {
	out            *strings.Builder
	left, top      int
	across, upward Axis
}

// Panel begins the panel in a column and row, each from 0. The caption tells what lies across.
func (d *Drawing) Panel(column, row int, title, caption string, across, upward Axis) *Panel {
	p := &Panel{&d.out, marginLeft + column*(panelWidth+panelGap), marginTop + row*(panelHeight+panelGap), across, upward}
	fmt.Fprintf(p.out, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", p.left, p.top-14, html.EscapeString(title))
	fmt.Fprintf(p.out, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#888"/>`+"\n", p.left, p.top, panelWidth, panelHeight)
	for _, m := range upward.Marks {
		fmt.Fprintf(p.out, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", p.left, p.left+panelWidth, p.y(m), p.y(m))
		fmt.Fprintf(p.out, `<text x="%d" y="%.1f" text-anchor="end">`+upward.Format+"</text>\n", p.left-6, p.y(m)+4, m)
	}
	for _, m := range across.Marks {
		fmt.Fprintf(p.out, `<text x="%.1f" y="%d" text-anchor="middle">`+across.Format+"</text>\n", p.x(m), p.top+panelHeight+16, m)
	}
	fmt.Fprintf(p.out, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n",
		p.left+panelWidth/2, p.top+panelHeight+34, html.EscapeString(caption))
	return p
}

func (p *Panel) x(value float64) float64 { return float64(p.left) + panelWidth*p.across.share(value) }
func (p *Panel) y(value float64) float64 {
	return float64(p.top) + panelHeight*(1-p.upward.share(value))
}

// Band shades where the budget wants the values.
func (p *Panel) Band(from, to float64) {
	fmt.Fprintf(p.out, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="#3a9d5d" fill-opacity="0.15"/>`+"\n",
		p.left, p.y(to), panelWidth, p.y(from)-p.y(to))
}

// Point is a value above a place.
type Point struct{ X, Y float64 }

// Line joins points, with a dot at each where they are few, and writes its name at its end.
func (p *Panel) Line(name, colour string, points []Point) {
	if len(points) == 0 {
		return
	}
	const few = 30
	var list []string
	for _, point := range points {
		list = append(list, fmt.Sprintf("%.1f,%.1f", p.x(point.X), p.y(point.Y)))
		if len(points) <= few {
			fmt.Fprintf(p.out, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", p.x(point.X), p.y(point.Y), colour)
		}
	}
	fmt.Fprintf(p.out, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(list, " "), colour)
	fmt.Fprintf(p.out, `<text x="%d" y="%.1f" fill="%s">%s</text>`+"\n", p.left+panelWidth+4, p.y(points[len(points)-1].Y)+4, colour, html.EscapeString(name))
}
