package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/types/key"
)

// steady sends 50 packets a second from one client to another. Both reconnect as tailscaled does. It prints the number
// of packets that arrived and of reconnects, and the longest time without a packet.
func steady(r *relay, length time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	r.ctx = ctx
	a, err := r.connectAs(key.NewNode())
	if err != nil {
		return err
	}
	b, err := r.connectAs(key.NewNode())
	if err != nil {
		return err
	}
	fmt.Println("connected")

	reconnects := make(chan int, 2)
	go func() { reconnects <- keepReading(ctx, a, func(derp.ReceivedPacket) {}) }()
	received, last, longest := 0, time.Now(), time.Duration(0)
	go func() {
		reconnects <- keepReading(ctx, b, func(derp.ReceivedPacket) {
			received++
			longest = max(longest, time.Since(last))
			last = time.Now()
		})
	}()
	sent := 0
	for ctx.Err() == nil {
		if a.Send(b.pub, []byte("steady")) == nil {
			sent++
		}
		time.Sleep(20 * time.Millisecond)
	}
	total := <-reconnects + <-reconnects
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"sent": sent, "received": received, "reconnects": total,
		"longest_gap_ms": max(longest, time.Since(last)).Milliseconds(),
	})
}

// keepReading reads until ctx ends, with magicsock's back-off between failures: n² × 10 ms, at most 5 s.
func keepReading(ctx context.Context, c *client, packet func(derp.ReceivedPacket)) (reconnects int) {
	failures, generation := 0, 1
	for ctx.Err() == nil {
		m, gen, err := c.RecvDetail()
		if err == derphttp.ErrClientClosed {
			break
		}
		if err != nil {
			failures++
			time.Sleep(min(time.Duration(failures*failures)*10*time.Millisecond, 5*time.Second))
			continue
		}
		if gen != generation {
			reconnects++
			generation = gen
		}
		failures = 0
		if p, ok := m.(derp.ReceivedPacket); ok {
			packet(p)
		}
	}
	return reconnects
}
