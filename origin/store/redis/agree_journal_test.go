package redis_test

import (
	"waitingroom/origin/queue"
	"waitingroom/origin/store"
)

// followed is a page of the journal and where it goes on from, of one store: the chains are each
// store's own.
type followed struct {
	from queue.Cursor
	page queue.Page
}

// journal reads the journal, and as a rule writes it on to the end of the log, or tries to write what does
// not follow on it.
func (p *pair) journal() {
	p.readJournal(p.incarnation())
	if _, err := both(p, "Get", func(s store.Store) (store.Meta, error) { return s.Get(p.ctx, p.id) }); err != nil {
		return // there is no queue
	}
	switch {
	case len(p.pages) > 0 && p.rarely("an earlier page", 4):
		p.writePage(p.pages[len(p.pages)-1-p.upTo("pages ago", min(len(p.pages)-1, 3))])
		return
	case p.rarely("only read", 5):
		return
	}
	p.readLog()
	pages, err := both(p, "pages", p.nextPages)
	if err != nil {
		p.t.Fatalf("go on with the journal: %s", p.plain(err.Error()))
	}
	for i := range pages {
		next := each[followed]{p.next[0][i], p.next[1][i]}
		p.pages = append(p.pages, next)
		p.writePage(next)
		if p.rarely("no further", 6) {
			return // the pages after it were computed from one that may not be there
		}
	}
}

// nextPages computes what follows on a store's journal, up to the end of the log as p has read it, and
// remembers it.
func (p *pair) nextPages(s store.Store) ([]queue.Page, error) {
	index := p.index(s)
	p.next[index] = nil
	journal, _, err := s.ReadJournal(p.ctx, p.id, p.inc, 0)
	if err != nil {
		return nil, err
	}
	view := *p.log.view
	view.Chain = p.log.chain[index]
	var pages []queue.Page
	entries, err := s.Entries(p.ctx, p.id, p.inc, journal.Entry, journal.Chain, 100_000)
	folds := err == nil
	if folds {
		pages, folds = journal.Fold(entries, &view)
	}
	if !folds {
		pages = []queue.Page{journal.Lose(&view, p.now)}
	}
	from := journal.Cursor
	plain := make([]queue.Page, len(pages))
	for i, page := range pages {
		p.next[index] = append(p.next[index], followed{from, page})
		from, plain[i] = page.Journal.Cursor, page
		plain[i].Journal.Chain = ""
	}
	return plain, nil
}

// writePage writes a page, as a rule as one that goes on from where it does.
func (p *pair) writePage(next each[followed]) {
	inc := p.incarnation()
	elsewhere := p.rarely("from elsewhere", 10)
	_, _ = both(p, "WriteJournal", func(s store.Store) (struct{}, error) {
		of := next[p.index(s)]
		if elsewhere {
			of.from.Entry++
		}
		return struct{}{}, s.WriteJournal(p.ctx, p.id, inc, of.from, of.page)
	})
}

// readJournal compares all that is kept of the journals.
func (p *pair) readJournal(inc string) {
	type answer struct {
		Journal queue.Journal
		Minutes []queue.Minute
	}
	limit := pick(p, "minutes", 1000, 1, 0)
	read, err := both(p, "ReadJournal", func(s store.Store) (a answer, err error) {
		a.Journal, a.Minutes, err = s.ReadJournal(p.ctx, p.id, inc, limit)
		a.Journal.Chain = ""
		return a, err
	})
	if err != nil {
		return
	}
	after := read.Journal.LastMove - min(read.Journal.LastMove, uint64(pick(p, "moves ago", 1000, 0, 1, 3)))
	limit = pick(p, "moves", 1000, 2, 0)
	_, _ = both(p, "ReadMoves", func(s store.Store) ([]queue.Move, error) {
		return s.ReadMoves(p.ctx, p.id, inc, after, limit)
	})
}
