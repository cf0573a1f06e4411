package queue

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/go-json-experiment/json"
)

// Identity says who may join.
type Identity string

// The two values of the setting identity.
const (
	IdentityOptional Identity = "optional" // anonymous joins are accepted
	IdentityRequired Identity = "required" // only joins that name a user are
)

// Bounds of the settings.
const (
	MaxCapacity      = 10_000_000
	MaxWindowSeconds = 7 * 24 * 3600
	MaxReturnOrigins = 32
	MaxRetention     = 366 * 24 * 3600
	MaxRemaining     = 1_000_000_000
)

// Settings of a queue, as an operator sets them. A change binds every script after its own: new
// windows apply to new offers and sessions, a changed hold starts everybody's absence afresh, a
// smaller capacity ends nobody's session.
type Settings struct {
	// Capacity is how many fans the shop holds at once: sessions and offers together. 0 to
	// MaxCapacity; required.
	Capacity int `json:"capacity"`
	// MaxPerMinute caps how many offers are made in a minute; 0, the default, sets no cap.
	MaxPerMinute int `json:"maxPerMinute"`
	// PurchaseWindowSeconds is how long a session runs. 1 to MaxWindowSeconds; default 1200.
	PurchaseWindowSeconds int `json:"purchaseWindowSeconds"`
	// HoldSeconds is how long a place outlives the last sighting. 1 to MaxWindowSeconds;
	// default 1800.
	HoldSeconds int `json:"holdSeconds"`
	// ClaimSeconds is how long an offer runs. 1 to MaxWindowSeconds; default 300.
	ClaimSeconds int `json:"claimSeconds"`
	// MaxMissedOffers is how many missed offers end a ticket. 1 to 100; default 2.
	MaxMissedOffers int `json:"maxMissedOffers"`
	// RetentionSeconds is how long a closed queue's data is kept. 1 to MaxRetention; default
	// 604800.
	RetentionSeconds int `json:"retentionSeconds"`
	// OpensAt is when a scheduled queue opens by itself; zero, the default, for one that was open
	// from the start. It can be moved while the queue is scheduled, or as it is scheduled again, by at most MaxPostponement past
	// its first value.
	OpensAt time.Time `json:"opensAt,omitzero"`
	// State is the queue's state; the default is open, or scheduled with an OpensAt in the future. A
	// queue that is paused or sold_out before its opening can be scheduled again until it was open.
	State State `json:"state"`
	// Remaining is what the shop has left to sell, 0 to MaxRemaining, as the backend reported it;
	// nil, the default, while it reports nothing. At 0 an open queue is sold out, until it has been
	// anything else, nil included, for ReopenAfter.
	Remaining *int `json:"remaining"`
	// Identity is optional (the default) or required.
	Identity Identity `json:"identity"`
	// ReturnOrigins are the shop's origins that the waiting page may send a fan to, as
	// scheme://host[:port]; at most MaxReturnOrigins.
	ReturnOrigins []string `json:"returnOrigins"`
	// Branding is what the waiting page shows of the tenant.
	Branding Branding `json:"branding"`
	// Locale is the page's language where the browser names none that it has: en (the default)
	// or hr.
	Locale string `json:"locale"`

	// Notes are the queue's own; nobody sets them.
	Notes Notes `json:"notes,omitzero"`
}

// Branding is what the waiting page shows of the tenant.
type Branding struct {
	// Name is the shop's name, at most 100 bytes.
	Name string `json:"name,omitzero"`
}

// DefaultSettings are the settings of a queue for which nothing was said; Capacity is missing.
func DefaultSettings() Settings {
	return Settings{
		PurchaseWindowSeconds: 1200,
		HoldSeconds:           1800,
		ClaimSeconds:          300,
		MaxMissedOffers:       2,
		RetentionSeconds:      604800,
		State:                 Open,
		Identity:              IdentityOptional,
		ReturnOrigins:         []string{},
		Locale:                "en",
	}
}

// Durations of the settings.
func (s Settings) PurchaseWindow() time.Duration { return seconds(s.PurchaseWindowSeconds) }
func (s Settings) Hold() time.Duration           { return seconds(s.HoldSeconds) }
func (s Settings) Claim() time.Duration          { return seconds(s.ClaimSeconds) }
func (s Settings) Retention() time.Duration      { return seconds(s.RetentionSeconds) }

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// SettingsError lists everything that is wrong with settings; its text may be shown to an
// operator.
type SettingsError struct{ Problems []string }

func (e *SettingsError) Error() string { return strings.Join(e.Problems, "; ") }

// noCapacity is the problem of settings that do not name a capacity.
const noCapacity = "capacity is required"

// DecodeSettings reads the settings of a queue that is created now: unknown, repeated and mistyped
// members are refused, what is missing or null gets its default. The error is a *SettingsError.
func DecodeSettings(body []byte, now time.Time) (Settings, error) {
	next, members, err := mergeSettings([]byte(`{}`), body)
	if err != nil {
		return Settings{}, err
	}
	problems := next.problems()
	if members["capacity"] == nil {
		problems = append([]string{noCapacity}, problems...)
	}
	next, more := next.created(members["state"] != nil, now)
	if problems = append(problems, more...); problems != nil {
		return Settings{}, &SettingsError{problems}
	}
	return next, nil
}

// Patch applies a merge patch (RFC 7396) to s now: a member that is null goes back to its default.
// The error is a *SettingsError.
func (s Settings) Patch(patch []byte, now time.Time) (Settings, error) {
	was, _ := s.At(now) // what is due comes before the patch
	current, err := json.Marshal(was)
	if err != nil {
		return Settings{}, fmt.Errorf("encode settings: %w", err)
	}
	next, members, err := mergeSettings(current, patch)
	if err != nil {
		return Settings{}, err
	}
	problems := next.problems()
	if capacity, named := members["capacity"]; named && capacity == nil {
		problems = append([]string{noCapacity}, problems...)
	}
	state, named := members["state"]
	if named && state == nil && (was.State == Scheduled || was.Notes.Unopened && next.OpensAt.After(now)) {
		next.State = Scheduled // the default of a queue that is yet to open
	}
	next, more := next.replacing(was, named, now)
	if problems = append(problems, more...); problems != nil {
		return Settings{}, &SettingsError{problems}
	}
	return next, nil
}

// mergeSettings decodes the current settings with a patch applied, and tells the patch's members.
func mergeSettings(current, patch []byte) (next Settings, members map[string]any, err error) {
	// The strict decoder sees the patch first, because the merge below would quietly take the
	// last of two members with the same name, and drop an unknown one that is null.
	if err := json.Unmarshal(patch, &members); err != nil || members == nil {
		return Settings{}, nil, &SettingsError{[]string{describeJSON(err, "a JSON object is required")}}
	}
	if _, named := members[notesMember]; named {
		return Settings{}, nil, &SettingsError{[]string{"unknown field /" + notesMember}}
	}
	var probe Settings
	if err := json.Unmarshal(patch, &probe, json.RejectUnknownMembers(true)); err != nil {
		return Settings{}, nil, &SettingsError{[]string{describeJSON(err, "")}}
	}
	merged, err := jsonpatch.MergePatch(current, patch)
	if err != nil {
		return Settings{}, nil, &SettingsError{[]string{"the body is not a merge patch"}}
	}
	next = DefaultSettings()
	if err := json.Unmarshal(merged, &next, json.RejectUnknownMembers(true)); err != nil {
		return Settings{}, nil, &SettingsError{[]string{describeJSON(err, "")}}
	}
	if !next.OpensAt.IsZero() {
		next.OpensAt = next.OpensAt.UTC().Truncate(time.Millisecond)
	}
	return next, members, nil
}

// describeJSON says what is wrong with a body, without repeating its values.
func describeJSON(err error, otherwise string) string {
	var semantic *json.SemanticError
	switch {
	case err == nil:
		return otherwise
	case errors.As(err, &semantic) && errors.Is(semantic.Err, json.ErrUnknownName):
		return "unknown field " + string(semantic.JSONPointer)
	case errors.As(err, &semantic) && semantic.JSONPointer == "":
		return "a JSON object is required"
	case errors.As(err, &semantic) && semantic.JSONPointer == "/opensAt":
		return "wrong type of value at /opensAt: a time such as 2026-03-01T10:00:00Z"
	case errors.As(err, &semantic):
		return "wrong type of value at " + string(semantic.JSONPointer)
	default:
		return "the body is not well-formed JSON with distinct member names"
	}
}

func (s Settings) problems() []string {
	var list []string
	within := func(name string, value, least, most int) {
		if value < least || value > most {
			list = append(list, fmt.Sprintf("%s: %d to %d", name, least, most))
		}
	}
	within("capacity", s.Capacity, 0, MaxCapacity)
	if year := s.OpensAt.Year(); !s.OpensAt.IsZero() && (year < 1970 || year >= 2200) {
		list = append(list, "opensAt: from 1970 to 2199")
	}
	within("maxPerMinute", s.MaxPerMinute, 0, MaxCapacity)
	within("purchaseWindowSeconds", s.PurchaseWindowSeconds, 1, MaxWindowSeconds)
	within("holdSeconds", s.HoldSeconds, 1, MaxWindowSeconds)
	within("claimSeconds", s.ClaimSeconds, 1, MaxWindowSeconds)
	within("maxMissedOffers", s.MaxMissedOffers, 1, 100)
	within("retentionSeconds", s.RetentionSeconds, 1, MaxRetention)
	if !s.State.Valid() {
		list = append(list, "state: scheduled, open, paused, sold_out or closed")
	}
	if s.Remaining != nil {
		within("remaining", *s.Remaining, 0, MaxRemaining)
	}
	if s.Identity != IdentityOptional && s.Identity != IdentityRequired {
		list = append(list, "identity: optional or required")
	}
	if s.Locale != "en" && s.Locale != "hr" {
		list = append(list, "locale: en or hr")
	}
	if len(s.Branding.Name) > 100 {
		list = append(list, "branding.name: at most 100 bytes")
	}
	if len(s.ReturnOrigins) > MaxReturnOrigins {
		list = append(list, fmt.Sprintf("returnOrigins: at most %d", MaxReturnOrigins))
	}
	for i, origin := range s.ReturnOrigins {
		if !validOrigin(origin) {
			list = append(list, fmt.Sprintf("returnOrigins[%d]: scheme://host[:port], http or https, in lower case", i))
		}
	}
	return list
}

// validOrigin reports whether s is an origin exactly as a browser would write it (RFC 6454).
func validOrigin(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return false
	}
	host, port := u.Hostname(), u.Port()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	} else if strings.Trim(host, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return false // a browser writes other letters in punycode
	}
	if port != "" {
		n, err := strconv.ParseUint(port, 10, 16)
		standard := u.Scheme == "http" && n == 80 || u.Scheme == "https" && n == 443
		if err != nil || standard || strconv.FormatUint(n, 10) != port {
			return false
		}
		host += ":" + port
	}
	return s == u.Scheme+"://"+host && s == strings.ToLower(s)
}
