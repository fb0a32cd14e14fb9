// Command goclient checks a relay with the stock Go client library (tailscale.com/derp/derphttp), over one transport.
// It prints one JSON line a check and exits 1 if any failed. Checks share nothing but the relay: each uses keys of its own.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derpconst"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"
)

var (
	url       = flag.String("url", "http://127.0.0.1:3340/derp", "relay's URL")
	dialAddr  = flag.String("dial", "", "address to dial instead of the URL's")
	ca        = flag.String("ca", "", "PEM file of the CA")
	transport = flag.String("transport", "plain", "plain, tls12 (ordinary upgrade), tls13 (fast start), websocket")
	serverKey = flag.String("server-key", "", "the relay's public key, 64 hex digits, to compare with the greeting")
	meshKey   = flag.String("mesh-key", "", "64 hex digits; without it the mesh checks are skipped")
	hold      = flag.Duration("steady", 0, "no checks: keep a pair sending for so long, and print the outcome")
	only      = flag.String("only", "", "run just the check of this name")
)

// relay makes clients of the relay under test.
type relay struct {
	ctx  context.Context
	mesh key.DERPMesh
}

type need int

const (
	watching  need = 1 << iota // the library's WebSocket client cannot ask to watch
	meshKeyed                  // the relay's mesh key must be known here
)

type check struct {
	name  string
	needs need
	run   func(*relay) error
}

func (c check) possible() bool {
	return !(c.needs&watching != 0 && *transport == "websocket" || c.needs&meshKeyed != 0 && *meshKey == "")
}

func main() {
	flag.Parse()
	r, err := setUp()
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(2)
	}
	if *hold > 0 {
		if err := steady(r, *hold); err != nil {
			fmt.Fprintln(os.Stderr, "goclient:", err)
			os.Exit(1)
		}
		return
	}
	failed := false
	for _, c := range checks {
		if *only != "" && c.name != *only || !c.possible() {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		r.ctx = ctx
		start := time.Now()
		err := c.run(r)
		cancel()
		line := map[string]any{"check": c.name, "ok": err == nil, "ms": time.Since(start).Milliseconds()}
		if err != nil {
			failed = true
			line["why"] = err.Error()
		}
		json.NewEncoder(os.Stdout).Encode(line)
	}
	if failed {
		os.Exit(1)
	}
}

func setUp() (*relay, error) {
	r := &relay{}
	if *meshKey != "" {
		mesh, err := key.ParseDERPMesh(*meshKey)
		if err != nil {
			return nil, err
		}
		r.mesh = mesh
	}
	if *transport != "websocket" {
		return r, nil
	}
	// The library's WebSocket dialler (build tag ts_debug_websockets) uses the default HTTP client.
	os.Setenv("TS_DEBUG_DERP_WS_CLIENT", "1")
	conf, err := tlsConfig()
	if err != nil {
		return nil, err
	}
	http.DefaultTransport = &http.Transport{DialContext: dial, TLSClientConfig: conf}
	return r, nil
}

func tlsConfig() (*tls.Config, error) {
	conf := &tls.Config{}
	switch *transport {
	case "tls12":
		conf.MaxVersion = tls.VersionTLS12
	case "tls13":
		conf.MinVersion = tls.VersionTLS13
	}
	if *ca != "" {
		pem, err := os.ReadFile(*ca)
		if err != nil {
			return nil, err
		}
		conf.RootCAs = x509.NewCertPool()
		conf.RootCAs.AppendCertsFromPEM(pem)
	}
	return conf, nil
}

func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	if *dialAddr != "" {
		addr = *dialAddr
	}
	var d net.Dialer
	return d.DialContext(ctx, network, addr)
}

// client is a connected stock client.
type client struct {
	*derphttp.Client
	pub key.NodePublic
}

// connect connects with a fresh key and waits for ServerInfo.
func (r *relay) connect(options ...func(*derphttp.Client)) (*client, error) {
	return r.connectAs(key.NewNode(), options...)
}

func (r *relay) connectAs(k key.NodePrivate, options ...func(*derphttp.Client)) (*client, error) {
	c, err := derphttp.NewClient(k, *url, logger.Discard, netmon.NewStatic())
	if err != nil {
		return nil, err
	}
	if c.TLSConfig, err = tlsConfig(); err != nil {
		return nil, err
	}
	c.SetURLDialer(dial)
	for _, o := range options {
		o(c)
	}
	if err := c.Connect(r.ctx); err != nil {
		return nil, err
	}
	context.AfterFunc(r.ctx, func() { c.Close() }) // ends with the check
	cl := &client{c, k.Public()}
	m, err := cl.Recv()
	if err != nil {
		return nil, fmt.Errorf("before ServerInfo: %w", err)
	}
	if _, ok := m.(derp.ServerInfoMessage); !ok {
		return nil, fmt.Errorf("first message is %T, not ServerInfo", m)
	}
	return cl, nil
}

// two connects two clients.
func (r *relay) two() (a, b *client, err error) {
	if a, err = r.connect(); err != nil {
		return nil, nil, err
	}
	b, err = r.connect()
	return a, b, err
}

// three connects three clients.
func (r *relay) three() (a, b, c *client, err error) {
	if a, b, err = r.two(); err != nil {
		return nil, nil, nil, err
	}
	c, err = r.connect()
	return a, b, c, err
}

// expect reads until a message of type M that ok accepts; other messages are passed over.
func expect[M derp.ReceivedMessage](c *client, ok func(M) bool) (M, error) {
	for {
		m, err := c.Recv()
		if err != nil {
			var zero M
			return zero, fmt.Errorf("waiting for %T: %w", zero, err)
		}
		if got, is := m.(M); is && ok(got) {
			return got, nil
		}
	}
}

// within runs f and gives up after d: the library's Recv takes no context.
func within(d time.Duration, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-time.After(d):
		return fmt.Errorf("nothing within %v", d)
	}
}

// quiet reports an error if c receives a message of type M within d.
func quiet[M derp.ReceivedMessage](c *client, d time.Duration) error {
	got := make(chan derp.ReceivedMessage, 1)
	go func() {
		if m, err := expect(c, func(M) bool { return true }); err == nil {
			got <- m
		}
	}()
	select {
	case m := <-got:
		return fmt.Errorf("unexpected %T %+v", m, m)
	case <-time.After(d):
		return nil
	}
}

// metaKey is the relay's key in the extra certificate of the fast start, or "".
func metaKey(state *tls.ConnectionState) string {
	for _, cert := range state.PeerCertificates {
		if hex, ok := strings.CutPrefix(cert.Subject.CommonName, derpconst.MetaCertCommonNamePrefix); ok {
			return hex
		}
	}
	return ""
}
