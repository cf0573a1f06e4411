package origin

import (
	"net/http"
	"net/url"
	"strconv"

	"waitingroom/origin/store"
)

// What GET /queues/{queue}/stats tells of the journal where the query does not say, and the most
// that it can ask for.
const (
	usualMinutes = 60
	usualMoves   = 50
	mostMinutes  = store.MinutesKept
	mostMoves    = 1000
)

// journalQuery says what part of the journal is wanted.
type journalQuery struct {
	minutes, moves int
	after          uint64
	last           bool // no number was named after which the moves are wanted
}

// parseJournalQuery reads the query of a request for stats: minutes, the last so many in which
// something happened; moves, so many of them; after, the number after which these begin, where it is
// not the last ones that are wanted.
func parseJournalQuery(r *http.Request) (journalQuery, error) {
	q := journalQuery{minutes: usualMinutes, moves: usualMoves, last: true}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return q, badQuery("it is malformed")
	}
	for name, list := range values {
		if len(list) != 1 {
			return q, errRepeatedQuery
		}
		n, err := strconv.ParseUint(list[0], 10, 63)
		switch {
		case name == "minutes" && err == nil && n <= mostMinutes:
			q.minutes = int(n)
		case name == "moves" && err == nil && n <= mostMoves:
			q.moves = int(n)
		case name == "after" && err == nil:
			q.after, q.last = n, false
		case name == "minutes":
			return q, badQuery("minutes: 0 to " + strconv.Itoa(mostMinutes))
		case name == "moves":
			return q, badQuery("moves: 0 to " + strconv.Itoa(mostMoves))
		case name == "after":
			return q, badQuery("after: the number of a move")
		default:
			return q, badQuery("minutes, moves and after are the parameters")
		}
	}
	return q, nil
}

func badQuery(detail string) error {
	return refuse(http.StatusBadRequest, "invalid_parameter", detail)
}
