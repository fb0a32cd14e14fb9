package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// Every payload starts with the sender's number and the moment of sending (ns since epoch below).
const stampLen = 12

var epoch = time.Now()

// traffic is a set of senders and receivers that all share one relay.
type traffic struct {
	senders   []*sender
	receivers []*receiver
	measuring atomic.Bool
	stopping  atomic.Bool
	wg        sync.WaitGroup
	failed    chan error
}

type sender struct {
	*client
	n      int
	to     []key.NodePublic
	sent   atomic.Int64
	acked  atomic.Int64 // packets of this sender that arrived, plus those given up as lost
	lost   int64
	wanted atomic.Int64  // acked value that the sender sleeps for; 0: awake
	wake   chan struct{} // capacity 1
	next   int           // position in to
}

type receiver struct {
	*client
	delivered atomic.Int64
	bytes     atomic.Int64
	latency   histogram
}

func newTraffic() *traffic { return &traffic{failed: make(chan error, 1)} }

func (t *traffic) fail(err error) {
	if t.stopping.Load() {
		return
	}
	select {
	case t.failed <- err:
	default:
	}
}

func (t *traffic) addSender(c *client, to ...key.NodePublic) *sender {
	s := &sender{client: c, n: len(t.senders), to: to, wake: make(chan struct{}, 1)}
	t.senders = append(t.senders, s)
	return s
}

func (t *traffic) addReceiver(c *client) *receiver {
	r := &receiver{client: c}
	t.receivers = append(t.receivers, r)
	return r
}

// receive counts what arrives at r until the connection ends.
func (t *traffic) receive(r *receiver) {
	for {
		m, err := r.Recv()
		if err != nil {
			t.fail(fmt.Errorf("receiver: %w", err))
			return
		}
		p, ok := m.(derp.ReceivedPacket)
		if !ok || len(p.Data) < stampLen {
			continue
		}
		s := t.senders[binary.BigEndian.Uint32(p.Data)]
		if t.measuring.Load() {
			r.latency.add(time.Since(epoch) - time.Duration(binary.BigEndian.Uint64(p.Data[4:])))
		}
		r.delivered.Add(1)
		r.bytes.Add(int64(len(p.Data)))
		acked := s.acked.Add(1)
		if w := s.wanted.Load(); w != 0 && acked >= w && s.wanted.CompareAndSwap(w, 0) {
			s.wake <- struct{}{}
		}
	}
}

// drain reads and forgets, as a sender's own connection must be read too.
func (t *traffic) drain(c *client) {
	for {
		if _, err := c.Recv(); err != nil {
			t.fail(fmt.Errorf("sender's reader: %w", err))
			return
		}
	}
}

// room waits until at most limit packets of s are under way. Packets that have not arrived after
// 100 ms without progress are counted as lost.
func (s *sender) room(limit int64) {
	for {
		acked := s.acked.Load()
		want := s.sent.Load() - limit
		if acked >= want {
			return
		}
		s.wanted.Store(want)
		if s.acked.Load() >= want && s.wanted.CompareAndSwap(want, 0) {
			return
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-s.wake:
			timer.Stop()
			return
		case <-timer.C:
			if !s.wanted.CompareAndSwap(want, 0) {
				<-s.wake // the wake-up won the race
				return
			}
			if now := s.acked.Load(); now == acked {
				missing := s.sent.Load() - now
				s.lost += missing
				s.acked.Add(missing)
			}
		}
	}
}

// send sends one packet to the sender's next destination.
func (s *sender) send(pkt []byte) error {
	binary.BigEndian.PutUint32(pkt, uint32(s.n))
	binary.BigEndian.PutUint64(pkt[4:], uint64(time.Since(epoch)))
	dst := s.to[s.next]
	if s.next++; s.next == len(s.to) {
		s.next = 0
	}
	s.sent.Add(1)
	return s.Send(dst, pkt)
}

// saturate keeps window packets under way, batch of them in each write.
func (t *traffic) saturate(s *sender, size, batch, window int) {
	pkt := randomBytes(size)
	for !t.stopping.Load() {
		s.room(int64(window - batch))
		if err := s.burst(batch, func(int) []byte { return pkt }); err != nil {
			t.fail(fmt.Errorf("sender: %w", err))
			return
		}
	}
}

// burst sends n packets, in one write when the client can hold them back.
func (s *sender) burst(n int, pkt func(i int) []byte) error {
	if s.cork != nil {
		s.cork.held = true
	}
	for i := range n {
		if err := s.send(pkt(i)); err != nil {
			return err
		}
	}
	if s.cork != nil {
		return s.cork.release()
	}
	return nil
}

// pace sends rate packets a second, evenly, from a random phase.
func (t *traffic) pace(s *sender, size int, rate float64) {
	pkt := randomBytes(size)
	gap := time.Duration(float64(time.Second) / rate)
	next := time.Now().Add(rand.N(gap))
	t.onTime(func() time.Time { next = next.Add(gap); return next }, func() error { return s.send(pkt) })
}

// replay sends the bursts of a modelled trace at their times.
func (t *traffic) replay(s *sender, model *trace) {
	pkt := randomBytes(maxTraceSize)
	var b burst
	next := time.Now()
	t.onTime(func() time.Time { b = model.next(); next = next.Add(b.after); return next }, func() error {
		return s.burst(len(b.sizes), func(i int) []byte {
			s.next = b.peer
			return pkt[:b.sizes[i]]
		})
	})
}

// onTime calls send at each time that next returns, until the traffic stops.
func (t *traffic) onTime(next func() time.Time, send func() error) {
	p, err := newPacer()
	if err != nil {
		t.fail(err)
		return
	}
	defer p.close()
	for !t.stopping.Load() {
		err := p.until(next())
		if err == nil {
			err = send()
		}
		if err != nil {
			t.fail(fmt.Errorf("sender: %w", err))
			return
		}
	}
}

func (t *traffic) goRun(f func()) {
	t.wg.Add(1)
	go func() { defer t.wg.Done(); f() }()
}

type counts struct{ sent, delivered, bytes int64 }

func (t *traffic) counts() (c counts) {
	for _, s := range t.senders {
		c.sent += s.sent.Load()
	}
	for _, r := range t.receivers {
		c.delivered += r.delivered.Load()
		c.bytes += r.bytes.Load()
	}
	return c
}

// measure lets the traffic warm up, then reports one window of it between the events begin and end.
func (t *traffic) measure(ctx context.Context, warm, window time.Duration, event string) error {
	if err := t.sleep(ctx, warm); err != nil {
		return err
	}
	for _, r := range t.receivers {
		r.latency = histogram{}
	}
	runtime.GC()
	t.measuring.Store(true)
	before, start := t.counts(), time.Now()
	emit(event+"begin", nil)
	err := t.sleep(ctx, window)
	after, took := t.counts(), time.Since(start)
	t.measuring.Store(false)
	if err != nil {
		return err
	}
	var all histogram
	for _, r := range t.receivers {
		all.merge(&r.latency)
	}
	emit(event+"end", map[string]any{
		"seconds":   took.Seconds(),
		"sent":      after.sent - before.sent,
		"delivered": after.delivered - before.delivered,
		"bytes":     after.bytes - before.bytes,
		"p50_us":    micros(all.quantile(0.50)),
		"p99_us":    micros(all.quantile(0.99)),
		"max_us":    micros(all.max),
	})
	return nil
}

func (t *traffic) sleep(ctx context.Context, d time.Duration) error {
	select {
	case err := <-t.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// stop ends the senders and closes every connection.
func (t *traffic) stop() {
	t.stopping.Store(true)
	for _, s := range t.senders {
		s.close()
	}
	for _, r := range t.receivers {
		r.close()
	}
	t.wg.Wait()
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func randomBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}
