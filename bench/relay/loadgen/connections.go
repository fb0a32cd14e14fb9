package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// connectMany opens n connections, -workers at a time.
func connectMany(ctx context.Context, n int, open func(context.Context) (*client, error)) ([]*client, error) {
	clients := make([]*client, n)
	return clients, each(n, func(i int) (err error) {
		clients[i], err = open(ctx)
		return err
	})
}

// each runs f(0) … f(n-1), -workers at a time, and returns the first error.
func each(n int, f func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, *workers)
	for range *workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					failed <- fmt.Errorf("number %d: %w", i, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	close(failed)
	return <-failed
}

// runIdle holds -count idle connections; then each moves -moved bytes to its neighbour and is idle
// again.
func runIdle(ctx context.Context, e *endpoint) error {
	if err := hold("empty", nil); err != nil {
		return err
	}
	t := newTraffic()
	defer t.stop()
	clients, err := connectMany(ctx, *count&^1, e.corked)
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	fields := map[string]any{"connections": len(clients), "key_exchange": clients[0].curve()}
	if err := hold("idle", fields); err != nil {
		return err
	}
	for i, c := range clients {
		t.addReceiver(c)
		t.addSender(c, clients[i^1].pub)
	}
	for _, r := range t.receivers {
		t.goRun(func() { t.receive(r) })
	}
	pkt := *size
	err = each(len(clients), func(i int) error {
		s, payload := t.senders[i], randomBytes(pkt)
		for left := *moved; left > 0; left -= pkt * *batch {
			s.room(int64(*window - *batch))
			if err := s.burst(*batch, func(int) []byte { return payload }); err != nil {
				return err
			}
		}
		s.room(0)
		return nil
	})
	if err != nil {
		return err
	}
	time.Sleep(2 * time.Second)
	c := t.counts()
	return hold("moved", map[string]any{
		"connections": len(clients),
		"bytes":       c.bytes,
		"sent":        c.sent,
		"delivered":   c.delivered,
	})
}

// runChurn makes -count connections that end as soon as the relay has greeted them.
func runChurn(ctx context.Context, e *endpoint) error {
	first, err := e.corked(ctx)
	if err != nil {
		return err
	}
	first.close()
	if err := hold("begin", map[string]any{"key_exchange": first.curve()}); err != nil {
		return err
	}
	start := time.Now()
	err = each(*count, func(int) error {
		c, err := e.corked(ctx)
		if err == nil {
			c.close()
		}
		return err
	})
	if err != nil {
		return err
	}
	emit("end", map[string]any{"handshakes": *count, "seconds": time.Since(start).Seconds()})
	time.Sleep(2 * time.Second)
	return hold("settled", nil)
}
