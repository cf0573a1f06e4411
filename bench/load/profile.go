package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
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
				l.keepProfile(ctx, url, name+"-"+program)
			})
		}
		p, err := drive()
		group.Wait()
		return p, err
	}
}

// profileEdges takes CPU profiles of edges while something lasts, where they are wanted. The function
// that it returns waits for their end.
func (l *lab) profileEdges(ctx context.Context, edges []edge, name string, while time.Duration) (wait func()) {
	var group sync.WaitGroup
	if l.profiles == "" {
		return group.Wait
	}
	for i, e := range edges {
		group.Go(func() {
			url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", e.admin, max(int(while.Seconds()), 1))
			l.keepProfile(ctx, url, fmt.Sprintf("%s-edge-%d", name, i+1))
		})
	}
	return group.Wait
}

// profileHeaps takes profiles of what edges hold in memory, where profiles are wanted.
func (l *lab) profileHeaps(ctx context.Context, edges []edge, name string) {
	if l.profiles == "" {
		return
	}
	for i, e := range edges {
		l.keepProfile(ctx, "http://"+e.admin+"/debug/pprof/heap", fmt.Sprintf("%s-heap-%d", name, i+1))
		l.keepProfile(ctx, "http://"+e.admin+"/debug/pprof/heap?debug=1", fmt.Sprintf("%s-heaptext-%d", name, i+1))
	}
}

func (l *lab) keepProfile(ctx context.Context, url, name string) {
	status, profile, err := ask(ctx, http.MethodGet, url, "", nil)
	if err == nil && status == http.StatusOK {
		err = os.WriteFile(filepath.Join(l.profiles, name+".pprof"), profile, 0o644)
	}
	if err != nil || status != http.StatusOK {
		l.progress(fmt.Sprintf("no profile %s: status %d %v", name, status, err))
	}
}
