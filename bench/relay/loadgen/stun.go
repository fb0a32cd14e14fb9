package main

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"
	xstun "tailscale.com/net/stun"
)

// runSTUN keeps a few requests under way on each of -pairs sockets. This side sends and reads several
// in a system call, so that the server is measured and not the generator.
func runSTUN(ctx context.Context, _ *endpoint) error {
	const underWay = 8 // × sockets: must fit the relay's receive buffer
	var answers atomic.Int64
	stop := make(chan struct{})
	failed := make(chan error, *pairs)
	for range *pairs {
		c, err := net.Dial("udp", *stun)
		if err != nil {
			return err
		}
		defer c.Close()
		go func() { failed <- askSTUN(c.(*net.UDPConn), underWay, &answers, stop) }()
	}
	pause := func(s float64) error {
		select {
		case err := <-failed:
			return err
		case <-time.After(duration(s)):
			return nil
		}
	}
	if err := pause(*warm); err != nil {
		return err
	}
	before, start := answers.Load(), time.Now()
	emit("begin", nil)
	if err := pause(*seconds); err != nil {
		return err
	}
	emit("end", map[string]any{"answers": answers.Load() - before, "seconds": time.Since(start).Seconds()})
	close(stop)
	return nil
}

func askSTUN(c *net.UDPConn, n int, answers *atomic.Int64, stop <-chan struct{}) error {
	pc := ipv4.NewPacketConn(c)
	tx := xstun.NewTxID()
	request := xstun.Request(tx)
	out, in := make([]ipv4.Message, n), make([]ipv4.Message, n)
	for i := range n {
		out[i].Buffers = [][]byte{request}
		in[i].Buffers = [][]byte{make([]byte, 128)}
	}
	owed := n // requests that may be sent now
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		for owed > 0 {
			k, err := pc.WriteBatch(out[:owed], 0)
			if err != nil {
				return err
			}
			owed -= k
		}
		c.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		k, err := pc.ReadBatch(in, 0)
		if ne, ok := err.(net.Error); ok && ne.Timeout() {
			owed = n // all lost: ask again
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range in[:k] {
			got, _, err := xstun.ParseResponse(m.Buffers[0][:m.N])
			if err != nil || got != tx {
				return fmt.Errorf("answer %x: %v", m.Buffers[0][:m.N], err)
			}
		}
		answers.Add(int64(k))
		owed = k
	}
}
