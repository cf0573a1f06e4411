package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
)

var (
	// loads are the references of a page, a style sheet or a module that a browser follows by itself.
	loads = regexp.MustCompile(`(?:\bsrc\s*=\s*|<link\b[^>]*\bhref\s*=\s*|\burl\()["']?([^"'\s)>]+)` +
		`|(?:\bfrom\s*|\bimport\s*|\bimport\()["']([^"']+)["']`)
	// comments of scripts and style sheets may speak of what is not loaded.
	comments = regexp.MustCompile(`(?s)/\*.*?\*/|(?m)^\s*//.*$|<!--.*?-->`)
)

// references lists what a document makes a browser load.
func references(document []byte) []string {
	var list []string
	for _, match := range loads.FindAllSubmatch(comments.ReplaceAll(document, nil), -1) {
		list = append(list, string(match[1])+string(match[2])) // one of them is empty
	}
	return list
}

// runPage loads the page and everything that it refers to, as a browser that can take gzip does,
// and the two answers that the page needs before it shows a place. Bodies are counted as they
// come over the network.
func runPage(ctx context.Context, l *lab) (measured, error) {
	in, id, err := l.installWithQueue(ctx, 0)
	if err != nil {
		return measured{}, err
	}
	defer in.close()
	base, err := url.Parse("http://" + in.edge)
	if err != nil {
		return measured{}, err
	}
	page := base.String() + "/wait/" + string(id) + "?return=" + url.QueryEscape("http://127.0.0.1:1/")
	size, foreign := 0, 0
	seen := map[string]bool{page: true}
	for todo := []string{page}; len(todo) > 0; todo = todo[1:] {
		document, n, err := load(ctx, http.MethodGet, todo[0], "")
		if err != nil {
			return measured{}, err
		}
		size += n
		at, err := url.Parse(todo[0])
		if err != nil {
			return measured{}, err
		}
		for _, reference := range references(document) {
			to, err := at.Parse(reference)
			switch {
			case err != nil || to.Scheme == "data" || seen[to.String()]:
			case to.Host != base.Host:
				foreign++
			default:
				seen[to.String()] = true
				todo = append(todo, to.String())
			}
		}
	}
	for path, method := range map[string]string{"": http.MethodGet, "/tickets": http.MethodPost} {
		_, n, err := load(ctx, method, base.String()+"/queues/"+string(id)+path, base.String())
		if err != nil {
			return measured{}, err
		}
		size += n
	}
	return measured{values: []float64{float64(size) / 1024, float64(foreign)}}, nil
}

// load asks for a document and returns it with the size in which it came.
func load(ctx context.Context, method, address, origin string) (document []byte, size int, err error) {
	header := http.Header{"Accept-Encoding": {"gzip"}}
	body := ""
	if origin != "" && method == http.MethodPost {
		header.Set("Origin", origin)
		header.Set("Sec-Fetch-Site", "same-origin")
		body = "{}"
	}
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, 0, err
	}
	r.Header = header
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, 0, fmt.Errorf("load: %w", err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, 0, fmt.Errorf("load: %w", err)
	}
	if answer.StatusCode >= 300 {
		return nil, 0, fmt.Errorf("load %s: status %d %s", address, answer.StatusCode, raw)
	}
	if answer.Header.Get("Content-Encoding") != "gzip" {
		return raw, len(raw), nil
	}
	unzip, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return nil, 0, fmt.Errorf("load %s: %w", address, err)
	}
	document, err = io.ReadAll(unzip)
	return document, len(raw), err
}
