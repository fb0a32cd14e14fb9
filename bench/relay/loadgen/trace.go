package main

import (
	"math/rand/v2"
	"time"
)

// The modelled trace: a relayed tailnet as its relay sees it. Each client talks in bursts, mostly to
// one peer. The model is seeded, so that every server under test gets the same packets at the same
// times.
//
//	kind         part of bursts   packets   bytes each
//	interactive  60 %             1–3       64–300
//	bulk         25 %             4–24      1,200–1,392, the last one of any size
//	acks         15 %             2–12      64–112
//
// Sizes are multiples of 16, as WireGuard pads them.
const (
	maxTraceSize   = 1392
	meanTraceBurst = 0.60*2 + 0.25*14 + 0.15*7
)

type burst struct {
	after time.Duration // since the burst before it
	peer  int           // index into the sender's destinations
	sizes []int
}

type trace struct {
	rng   *rand.Rand
	peers int
	mean  float64 // seconds between bursts
	sizes [24]int
}

// newTrace models one client of number n that sends rate packets a second to peers others.
func newTrace(n, peers int, rate float64) *trace {
	return &trace{rng: rand.New(rand.NewPCG(4, uint64(n))), peers: peers, mean: meanTraceBurst / rate}
}

func (t *trace) between(lo, hi int) int { return lo + t.rng.IntN(hi-lo+1) }

func (t *trace) next() burst {
	b := burst{after: time.Duration(t.rng.ExpFloat64() * t.mean * float64(time.Second))}
	if t.rng.Float64() > 0.7 {
		b.peer = t.rng.IntN(t.peers)
	}
	n, lo, hi := t.between(1, 3), 64, 300
	kind := t.rng.Float64()
	switch {
	case kind < 0.25:
		n, lo, hi = t.between(4, 24), 1200, maxTraceSize
	case kind < 0.40:
		n, lo, hi = t.between(2, 12), 64, 112
	}
	b.sizes = t.sizes[:n]
	for i := range b.sizes {
		b.sizes[i] = t.between(lo, hi) &^ 15
	}
	if lo == 1200 {
		b.sizes[n-1] = t.between(64, maxTraceSize) &^ 15
	}
	return b
}
