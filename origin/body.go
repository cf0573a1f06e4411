package origin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"waitingroom/origin/queue"
)

const (
	// maxDocument bounds the body of an operator's request, in bytes.
	maxDocument = 64 << 10
	// maxDepth bounds how deep it is nested: far more than settings are, and little enough that
	// a merge, which reads each level again, costs nothing.
	maxDepth = 16
)

// readDocument reads the JSON object of an operator's request and checks its shape: well-formed,
// UTF-8, member names that differ.
func readDocument(w http.ResponseWriter, r *http.Request, types ...string) ([]byte, error) {
	body, err := readBody(w, r, maxDocument, types...)
	if err != nil {
		return nil, err
	}
	tokens := jsontext.NewDecoder(bytes.NewReader(body))
	if tokens.PeekKind() != '{' {
		return nil, errBadBody
	}
	for {
		_, err := tokens.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil || tokens.StackDepth() > maxDepth:
			return nil, errBadBody
		}
		if tokens.StackDepth() == 0 && len(bytes.TrimSpace(body[tokens.InputOffset():])) > 0 {
			return nil, errBadBody // a second document
		}
	}
}

// readBody reads a JSON body of one of the media types, application/json if none is named.
func readBody(w http.ResponseWriter, r *http.Request, limit int64, types ...string) ([]byte, error) {
	if len(types) == 0 {
		types = []string{"application/json"}
	}
	values := r.Header.Values("Content-Type")
	if len(values) != 1 || r.Header.Get("Content-Encoding") != "" {
		return nil, errMediaType
	}
	mediaType, params, err := mime.ParseMediaType(values[0])
	if err != nil || !slices.Contains(types, mediaType) {
		return nil, errMediaType
	}
	if charset, named := params["charset"]; named && !strings.EqualFold(charset, "utf-8") {
		return nil, errMediaType
	}
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, errTooLarge
	case err != nil:
		return nil, errBadBody
	}
	return body, nil
}

// readMessage reads the message of an edge. Unknown members are passed over, so that edges can
// be newer than origins.
func readMessage(w http.ResponseWriter, r *http.Request, limit int64, message any) error {
	body, err := readBody(w, r, limit)
	if err != nil {
		return err
	}
	// null would leave the message empty.
	if jsontext.Value(body).Kind() != '{' || json.Unmarshal(body, message) != nil {
		return errBadBody
	}
	return nil
}

// splitSlug takes the slug out of the document of a new queue; the rest are its settings.
func splitSlug(body []byte) (slug string, settings []byte, err error) {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(body, &members); err != nil || members == nil {
		return "", nil, errBadBody
	}
	raw, exists := members["slug"]
	if !exists {
		return "", nil, &queue.SettingsError{Problems: []string{"slug is required"}}
	}
	if err := json.Unmarshal(raw, &slug); err != nil || !queue.ValidName(slug) {
		return "", nil, &queue.SettingsError{Problems: []string{"slug: a-z, 0-9 and -, 1 to 63 long"}}
	}
	delete(members, "slug")
	settings, err = json.Marshal(members)
	if err != nil {
		return "", nil, fmt.Errorf("encode settings: %w", err)
	}
	return slug, settings, nil
}
