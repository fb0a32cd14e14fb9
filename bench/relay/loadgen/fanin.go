package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// runFanIn paces -pairs undisturbed pairs, first alone (events calm.*), then beside -count senders
// that all send to one receiver which never reads (events stalled.*).
func runFanIn(ctx context.Context, e *endpoint) error {
	const perSender = 250 // packets a second
	t := newTraffic()
	defer t.stop()
	if err := t.addPairs(ctx, e, *pairs, false); err != nil {
		return err
	}
	for _, s := range t.senders {
		t.goRun(func() { t.pace(s, *size, *rate/float64(*pairs)) })
	}
	if err := t.measure(ctx, duration(*warm), duration(*seconds), "calm."); err != nil {
		return err
	}

	flood := newTraffic()
	defer flood.stop()
	stalled, err := e.corked(ctx)
	if err != nil {
		return fmt.Errorf("stalled receiver: %w", err)
	}
	flood.goRun(func() {
		if err := stall(ctx, e, stalled, &flood.stopping); err != nil {
			t.fail(err)
		}
	})
	for range *count {
		c, err := e.connect(ctx)
		if err != nil {
			return err
		}
		flood.addSender(c, stalled.pub)
	}
	for _, s := range flood.senders {
		flood.goRun(func() { flood.drain(s.client) })
		flood.goRun(func() { flood.pace(s, *size, perSender) })
	}
	if err := t.measure(ctx, duration(*warm), duration(*seconds), "stalled."); err != nil {
		return err
	}
	sent := flood.counts().sent
	flood.stop()
	return hold("settled", map[string]any{"flood_sent": sent})
}

// stall keeps a connection of c's key open without reading from it. Relays hang up on such a client
// after 2 s, and it does not see that, so it connects again every 2 s.
func stall(ctx context.Context, e *endpoint, c *client, stopping *atomic.Bool) error {
	for {
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			if stopping.Load() {
				c.close()
				return nil
			}
		}
		again, err := e.corkedAs(ctx, c.priv)
		c.close()
		if err != nil {
			return fmt.Errorf("stalled receiver: %w", err)
		}
		c = again
	}
}
