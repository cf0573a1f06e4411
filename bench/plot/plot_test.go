package plot

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestDrawingIsWellFormed(t *testing.T) {
	d := New(2, 1)
	p := d.Panel(1, 0, "times < budget", "seconds & more", Axis{Most: 10, Marks: []float64{0, 5, 10}, Format: "%.0f"},
		Axis{Most: 100, Marks: []float64{0, 100}, Format: "%.0f ms"})
	p.Band(0, 50)
	p.Line("p99", "#000", []Point{{0, 0}, {5, 200}, {10, 100}})
	p.Line("nothing", "#000", nil)
	svg := d.SVG()
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("got %v in %s, want XML", err, svg)
		}
	}
	// The second panel begins at 56 + 420 + 70; a value beyond the axis is drawn at its end.
	if want := `points="546.0,264.0 756.0,44.0 966.0,44.0"`; !strings.Contains(svg, want) {
		t.Errorf("got %s, want %s in it", svg, want)
	}
	if strings.Contains(svg, "nothing") {
		t.Error("a line without points is named, want it left out")
	}
}
