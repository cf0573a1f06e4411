package memory

import "math/bits"

const (
	pageSize  = 1 << 16 // positions in a page
	pageWords = pageSize / 64
)

// bitset is a set of numbers from 0, in pages that are made at once when something in them is set.
// A missing page is empty.
type bitset []*[pageWords]uint64

func (b bitset) has(n uint64) bool {
	if page := b.page(int(n / pageSize)); page != nil {
		return page[n%pageSize/64]&(1<<(n%64)) != 0
	}
	return false
}

// page returns a page, nil when nothing in it was ever set.
func (b bitset) page(index int) *[pageWords]uint64 {
	if index < len(b) {
		return b[index]
	}
	return nil
}

// grow returns a page, which is made when it is missing.
func (b *bitset) grow(index int) *[pageWords]uint64 {
	for len(*b) <= index {
		*b = append(*b, nil)
	}
	if (*b)[index] == nil {
		(*b)[index] = new([pageWords]uint64)
	}
	return (*b)[index]
}

// set reports whether n is new.
func (b *bitset) set(n uint64) bool {
	word := &b.grow(int(n / pageSize))[n%pageSize/64]
	bit := uint64(1) << (n % 64)
	was := *word&bit != 0
	*word |= bit
	return !was
}

// unset reports whether n was in the set.
func (b bitset) unset(n uint64) bool {
	if !b.has(n) {
		return false
	}
	b[n/pageSize][n%pageSize/64] &^= 1 << (n % 64)
	return true
}

// setRange adds from … to-1, a word at a time.
func (b *bitset) setRange(from, to uint64) {
	for from < to {
		page := b.grow(int(from / pageSize))
		word := &page[from%pageSize/64]
		n := min(64-from%64, to-from)
		*word |= (^uint64(0) >> (64 - n)) << (from % 64)
		from += n
	}
}

// appendBits appends the positions that the word at an index of a page stands for.
func appendBits(list []uint64, page, index int, word uint64) []uint64 {
	base := uint64(page)*pageSize + uint64(index)*64 + 1
	for ; word != 0; word &= word - 1 {
		list = append(list, base+uint64(bits.TrailingZeros64(word)))
	}
	return list
}

// at returns one word of a page that may be missing.
func at(page *[pageWords]uint64, index int) uint64 {
	if page == nil {
		return 0
	}
	return page[index]
}
