package queue

import (
	"errors"
	"fmt"
	"strings"
)

// ID names a queue: "tenant.slug", both parts [a-z0-9-]{1,63}.
type ID string

// ErrBadID says that a string is not a queue id.
var ErrBadID = errors.New("a queue id is tenant.slug, each of a-z, 0-9 and -, 1 to 63 long")

// ParseID checks that s is a queue id.
func ParseID(s string) (ID, error) {
	tenant, slug, found := strings.Cut(s, ".")
	if !found || !ValidName(tenant) || !ValidName(slug) {
		return "", fmt.Errorf("parse queue id: %w", ErrBadID)
	}
	return ID(s), nil
}

// MakeID joins a tenant and a slug, which the caller has checked with ValidName.
func MakeID(tenant, slug string) ID { return ID(tenant + "." + slug) }

// Tenant is the part before the dot.
func (id ID) Tenant() string {
	tenant, _, _ := strings.Cut(string(id), ".")
	return tenant
}

// Slug is the part after the dot.
func (id ID) Slug() string {
	_, slug, _ := strings.Cut(string(id), ".")
	return slug
}

// ValidName reports whether s may be a tenant's id, a queue's slug or the name of an edge's process:
// [a-z0-9-]{1,63}.
func ValidName(s string) bool {
	if len(s) < 1 || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}
