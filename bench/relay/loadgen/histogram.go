package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets at most 1/32 wide; one writer.
type histogram struct {
	counts [64 * 32]uint64
	n      uint64
	max    time.Duration
}

func bucket(v uint64) int {
	if v < 32 {
		return int(v)
	}
	exp := bits.Len64(v) - 6 // v>>exp is in [32, 64)
	return (exp+1)*32 + int(v>>exp) - 32
}

func bucketFloor(i int) uint64 {
	if i < 32 {
		return uint64(i)
	}
	exp := i/32 - 1
	return uint64(i%32+32) << exp
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.n++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, c := range o.counts {
		h.counts[i] += c
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile returns the lower edge of the bucket that holds the q-th part of the samples.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.n))
	var seen uint64
	for i, c := range h.counts {
		seen += c
		if seen > rank {
			return time.Duration(bucketFloor(i))
		}
	}
	return h.max
}
