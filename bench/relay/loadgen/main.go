// Command loadgen drives a DERP relay with Tailscale's own client packages, so that a relay is judged
// by code that is not its own. It measures nothing of the relay's process: it prints one JSON event a
// line, and the program that started it reads the process at those moments. At an event with "hold"
// it waits for a line on its input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

var (
	addr    = flag.String("addr", "127.0.0.1:443", "relay's address")
	name    = flag.String("name", "derp.bench.test", "relay's host name")
	ca      = flag.String("ca", "", "PEM file of the CA; empty: plain HTTP")
	curves  = flag.String("curves", "", "x25519: offer only that; empty: Go's preference")
	seconds = flag.Float64("seconds", 5, "length of the measured window")
	warm    = flag.Float64("warm", 1, "seconds of the same traffic before it")
	pairs   = flag.Int("pairs", 20, "senders, and as many receivers")
	size    = flag.Int("size", 1200, "bytes a packet")
	batch   = flag.Int("batch", 32, "packets in one write; 0: the stock client, one write per packet")
	window  = flag.Int("window", 64, "packets that a sender has under way")
	rotate  = flag.Bool("rotate", false, "each sender takes the receivers in turn")
	rate    = flag.Float64("rate", 0, "packets a second of all senders together; 0: as many as come through")
	count   = flag.Int("count", 1000, "connections, handshakes")
	workers = flag.Int("workers", 32, "handshakes at once")
	moved   = flag.Int("moved", 1<<20, "idle: bytes that each connection then moves")
	place   = flag.String("place", "", "pairs on a relay of two workers: same or across")
	debugAt = flag.String("debug", "", "the workers' debug addresses, comma-separated; for -place")
	stun    = flag.String("stun", "", "relay's STUN address")
)

var regimes = map[string]func(context.Context, *endpoint) error{
	"pairs": runPairs,
	"trace": runTrace,
	"idle":  runIdle,
	"churn": runChurn,
	"stun":  runSTUN,
	"fanin": runFanIn,
}

func main() {
	regime := ""
	if len(os.Args) > 1 {
		regime = os.Args[1]
		os.Args = append(os.Args[:1], os.Args[2:]...)
	}
	flag.Parse()
	run, ok := regimes[regime]
	if !ok {
		fmt.Fprintln(os.Stderr, "usage: loadgen pairs|trace|idle|churn|stun|fanin [flags]")
		os.Exit(2)
	}
	debug.SetGCPercent(400)
	e, err := newEndpoint(*addr, *name, *ca, *curves, regime == "idle" || regime == "churn")
	if err == nil {
		err = run(context.Background(), e)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "loadgen %s: %v\n", regime, err)
		os.Exit(1)
	}
}

// emit prints one event.
func emit(event string, fields map[string]any) {
	line := map[string]any{"event": event}
	for k, v := range fields {
		line[k] = v
	}
	b, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stdout.Write(append(b, '\n'))
}

var stdin = bufio.NewReader(os.Stdin)

// hold emits the event and waits until the driver has looked at the relay.
func hold(event string, fields map[string]any) error {
	if fields == nil {
		fields = map[string]any{}
	}
	fields["hold"] = true
	emit(event, fields)
	_, err := stdin.ReadString('\n')
	return err
}

func duration(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }
