package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"tailscale.com/types/key"
)

// connectPlaced connects n senders and n receivers to a relay of two workers, so that each pair is on
// one worker (-place same) or on both (-place across), evenly in both directions. The kernel chooses
// the worker of a connection, so more are made than are needed. The debug page shows the worker of
// each: workers number connections in turn.
func connectPlaced(ctx context.Context, e *endpoint, n int) (senders, receivers []*client, err error) {
	var on [2][]*client
	for len(on[0]) < 2*n || len(on[1]) < 2*n {
		var fresh []*client
		for range n {
			c, err := e.connect(ctx)
			if err != nil {
				return nil, nil, err
			}
			fresh = append(fresh, c)
		}
		workers, err := workersOf(strings.Split(*debugAt, ",")[0], len(on))
		if err != nil {
			return nil, nil, err
		}
		for _, c := range fresh {
			if worker, known := workers[c.pub]; known {
				on[worker] = append(on[worker], c)
			}
		}
	}
	for i := range n {
		from := i % 2
		to := from
		if *place == "across" {
			to = 1 - from
		}
		senders = append(senders, on[from][0])
		receivers = append(receivers, on[to][len(on[to])-1])
		on[from] = on[from][1:]
		on[to] = on[to][:len(on[to])-1]
	}
	for _, c := range append(on[0], on[1]...) {
		c.close()
	}
	return senders, receivers, nil
}

// workersOf asks the relay for its clients' keys, and which of n workers has each.
func workersOf(address string, n int) (map[key.NodePublic]int, error) {
	resp, err := http.Get("http://" + address + "/debug/clients/?all&limit=1000&format=json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var page struct {
		Clients []struct {
			Key     key.NodePublic
			ConnNum int
		}
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	workers := map[key.NodePublic]int{}
	for _, c := range page.Clients {
		workers[c.Key] = (c.ConnNum - 1) % n
	}
	return workers, nil
}
