package main

import "time"

// usage is what some edges use of the machine.
type usage struct {
	at       time.Time
	cpu      time.Duration
	resident []int64 // bytes, of each edge
}

func measureUsage(edges []edge) (usage, error) {
	u := usage{at: time.Now()}
	for _, e := range edges {
		pid := e.process.cmd.Process.Pid
		cpu, err := cpuTime(pid)
		if err != nil {
			return u, err
		}
		resident, err := residentBytes(pid)
		if err != nil {
			return u, err
		}
		u.cpu += cpu
		u.resident = append(u.resident, resident)
	}
	return u, nil
}

// coresSince is how many cores the edges had in use, on average, since an earlier measurement.
func (u usage) coresSince(before usage) float64 {
	return (u.cpu - before.cpu).Seconds() / u.at.Sub(before.at).Seconds()
}

// kibSince is by how many KiB for each of so many connections the edges from one to before another
// have grown. Where they have given more memory back than they took, it is next to nothing.
func (u usage) kibSince(before usage, from, to, connections int) float64 {
	var grown int64
	for i := from; i < to; i++ {
		grown += u.resident[i] - before.resident[i]
	}
	return float64(max(grown, 1)) / 1024 / float64(connections)
}
