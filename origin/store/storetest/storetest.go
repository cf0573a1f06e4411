// Package storetest is the conformance suite of package store: every implementation passes it.
//
// All times are virtual: a test begins at the store's Now and moves on by arithmetic, so nothing
// in it waits. Each test makes queues of its own under ids that nobody else uses, and when it
// ends the log of each of them is read from its first entry and must tell what the store tells.
package storetest

import (
	"testing"

	"waitingroom/origin/store"
)

// Run runs the suite. open returns a store that lives until t ends; it may be called often, and
// its stores may share their data.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, group := range []struct {
		name  string
		cases []testCase
	}{
		{"registry", registryCases},
		{"join", joinCases},
		{"sightings", sightingCases},
		{"claim", claimCases},
		{"tick", tickCases},
		{"turn", turnCases},
		{"lease", leaseCases},
		{"sale", saleCases},
		{"log", logCases},
		{"journal", journalCases},
		{"renew", renewCases},
		{"revocations", revocationCases},
		{"schedule", scheduleCases},
		{"race", raceCases},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
			}
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, s store.Store)
}
