package main

import (
	"context"
	"fmt"

	"tailscale.com/types/key"
)

// connect makes a client of the kind that -batch asks for.
func (e *endpoint) connect(ctx context.Context) (*client, error) {
	if *batch == 0 {
		return e.stock(ctx)
	}
	return e.corked(ctx)
}

// addPairs connects n senders and n receivers; sender i sends to receiver i, or to all of them in
// turn. A relay of one process is the measure for -place, and has no workers to choose from.
func (t *traffic) addPairs(ctx context.Context, e *endpoint, n int, rotate bool) error {
	connect := connectPairs
	if *place != "" && *debugAt != "" {
		connect = connectPlaced
	}
	senders, receivers, err := connect(ctx, e, n)
	if err != nil {
		return err
	}
	var keys []key.NodePublic
	for _, c := range receivers {
		keys = append(keys, c.pub)
		r := t.addReceiver(c)
		t.goRun(func() { t.receive(r) })
	}
	for i, c := range senders {
		s := t.addSender(c, keys[i])
		if rotate {
			s.to, s.next = keys, i
		}
		t.goRun(func() { t.drain(c) })
	}
	return nil
}

func connectPairs(ctx context.Context, e *endpoint, n int) (senders, receivers []*client, err error) {
	for range n {
		r, err := e.connect(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("receiver: %w", err)
		}
		s, err := e.connect(ctx)
		if err != nil {
			return nil, nil, fmt.Errorf("sender: %w", err)
		}
		senders, receivers = append(senders, s), append(receivers, r)
	}
	return senders, receivers, nil
}

func runPairs(ctx context.Context, e *endpoint) error {
	t := newTraffic()
	defer t.stop()
	if err := t.addPairs(ctx, e, *pairs, *rotate); err != nil {
		return err
	}
	emit("connected", map[string]any{"key_exchange": t.senders[0].curve()})
	for _, s := range t.senders {
		t.goRun(func() {
			if *rate > 0 {
				t.pace(s, *size, *rate/float64(*pairs))
			} else {
				t.saturate(s, *size, max(*batch, 1), *window)
			}
		})
	}
	return t.measure(ctx, duration(*warm), duration(*seconds), "")
}

// runTrace lets -pairs clients talk to five others each, as trace.go models it.
func runTrace(ctx context.Context, e *endpoint) error {
	const peers = 5
	t := newTraffic()
	defer t.stop()
	var keys []key.NodePublic
	for range *pairs {
		c, err := e.connect(ctx)
		if err != nil {
			return err
		}
		t.addReceiver(c)
		keys = append(keys, c.pub)
	}
	for i, r := range t.receivers {
		var to []key.NodePublic
		for j := range peers {
			to = append(to, keys[(i+1+j*7)%len(keys)])
		}
		t.addSender(r.client, to...)
	}
	for i, s := range t.senders {
		t.goRun(func() { t.receive(t.receivers[i]) })
		t.goRun(func() { t.replay(s, newTrace(i, peers, *rate/float64(*pairs))) })
	}
	return t.measure(ctx, duration(*warm), duration(*seconds), "")
}
