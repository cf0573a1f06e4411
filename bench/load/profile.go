package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profiled takes CPU profiles of edge and origin while they are driven, where they are wanted. The
// file of a later round replaces that of an earlier one.
func (l *lab) profiled(ctx context.Context, in *installation, name string) func(func() (pace, error)) (pace, error) {
	if l.profiles == "" {
		return nil
	}
	seconds := max(int(l.sizes.duration.Seconds()), 1)
	return func(drive func() (pace, error)) (pace, error) {
		var group sync.WaitGroup
		for program, address := range map[string]string{"edge": in.edgeAdmin, "origin": in.originAdmin} {
			group.Go(func() {
				url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, seconds)
				status, profile, err := ask(ctx, http.MethodGet, url, "", nil)
				if err == nil && status == http.StatusOK {
					err = os.WriteFile(filepath.Join(l.profiles, name+"-"+program+".pprof"), profile, 0o644)
				}
				if err != nil || status != http.StatusOK {
					l.progress(fmt.Sprintf("no profile of the %s: status %d %v", program, status, err))
				}
			})
		}
		p, err := drive()
		group.Wait()
		return p, err
	}
}
