package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"tailscale.com/types/key"
)

// connectPlaced connects n senders and n receivers to a relay of two workers, so that each pair is on one worker
// (-place same) or on both (-place across), evenly in both directions. The kernel chooses the worker of a connection,
// so more are made than are needed, and each worker's debug page tells which it got.
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
		for worker, at := range strings.Split(*debugAt, ",") {
			there, err := clientsAt(at)
			if err != nil {
				return nil, nil, err
			}
			for _, c := range fresh {
				if there[c.pub] {
					on[worker] = append(on[worker], c)
				}
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

// clientsAt asks one worker for the keys of its clients.
func clientsAt(address string) (map[key.NodePublic]bool, error) {
	resp, err := http.Get("http://" + address + "/debug/clients/?all&limit=1000&format=json")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var page struct {
		Clients []struct{ Key key.NodePublic }
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		return nil, fmt.Errorf("%s: %w", address, err)
	}
	keys := map[key.NodePublic]bool{}
	for _, c := range page.Clients {
		keys[c.Key] = true
	}
	return keys, nil
}
