package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"tailscale.com/derp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
	"tailscale.com/types/logger"

	"tailscale.com/derp/derphttp"
)

// endpoint says where the relay is and how clients greet it.
type endpoint struct {
	addr   string // host:port to dial; TLS verifies name
	name   string
	roots  *x509.CertPool // nil: plain HTTP
	curves []tls.CurveID  // nil: Go's preference, X25519MLKEM768 first
	spread bool           // dial from many addresses of 127.0.0.0/8, so that no port range runs out

	dialled atomic.Uint32
}

func newEndpoint(addr, name, ca, curves string, spread bool) (*endpoint, error) {
	e := &endpoint{addr: addr, name: name, spread: spread}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, err
		}
		e.roots = x509.NewCertPool()
		if !e.roots.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate inside", ca)
		}
	}
	switch curves {
	case "":
	case "x25519":
		e.curves = []tls.CurveID{tls.X25519}
	default:
		return nil, fmt.Errorf("-curves %s: want x25519 or nothing", curves)
	}
	return e, nil
}

func (e *endpoint) tlsConfig() *tls.Config {
	return &tls.Config{RootCAs: e.roots, ServerName: e.name, CurvePreferences: e.curves}
}

func (e *endpoint) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	d := net.Dialer{}
	if e.spread {
		n := e.dialled.Add(1)
		d.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 1, byte(n>>8), byte(n))}
	}
	return d.DialContext(ctx, "tcp", e.addr)
}

// client is one connection as the generator uses it. tailscale.com/derp makes and parses every frame.
type client struct {
	priv key.NodePrivate
	pub  key.NodePublic
	conn net.Conn // nil for a stock client, which keeps its own
	cork *cork    // nil for a stock client
	tls  *tls.ConnectionState
	transport
}

// transport is what derp.Client and derphttp.Client share.
type transport interface {
	Send(dst key.NodePublic, pkt []byte) error
	Recv() (derp.ReceivedMessage, error)
}

// stock connects as tailscaled does: derphttp.Client, fast start where the relay offers it, one write
// per packet.
func (e *endpoint) stock(ctx context.Context) (*client, error) {
	scheme := "http"
	if e.roots != nil {
		scheme = "https"
	}
	_, port, err := net.SplitHostPort(e.addr)
	if err != nil {
		return nil, err
	}
	priv := key.NewNode()
	url := fmt.Sprintf("%s://%s:%s/derp", scheme, e.name, port)
	hc, err := derphttp.NewClient(priv, url, logger.Discard, netmon.NewStatic())
	if err != nil {
		return nil, err
	}
	hc.TLSConfig = e.tlsConfig()
	hc.SetURLDialer(e.dial)
	if err := hc.Connect(ctx); err != nil {
		return nil, err
	}
	c := &client{priv: priv, pub: priv.Public(), transport: hc}
	c.tls, _ = hc.TLSConnectionState()
	return c, c.awaitInfo()
}

// corked connects with derp.Client over a writer that can hold frames back, so that several of them
// leave in one write.
func (e *endpoint) corked(ctx context.Context) (*client, error) {
	return e.corkedAs(ctx, key.NewNode())
}

func (e *endpoint) corkedAs(ctx context.Context, priv key.NodePrivate) (*client, error) {
	conn, err := e.dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	c, err := e.upgrade(conn, priv)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

func (e *endpoint) upgrade(conn net.Conn, priv key.NodePrivate) (*client, error) {
	c := &client{priv: priv, pub: priv.Public(), conn: conn}
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if e.roots != nil {
		tc := tls.Client(conn, e.tlsConfig())
		if err := tc.Handshake(); err != nil {
			return nil, err
		}
		state := tc.ConnectionState()
		c.conn, c.tls = tc, &state
	}
	c.cork = &cork{to: c.conn}
	brw := bufio.NewReadWriter(bufio.NewReader(c.conn), bufio.NewWriter(c.cork))
	req, err := http.NewRequest("GET", "http://"+e.name+"/derp", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Upgrade", "DERP")
	req.Header.Set("Connection", "Upgrade")
	if err := req.Write(brw); err != nil {
		return nil, err
	}
	if err := brw.Flush(); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(brw.Reader, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("upgrade answered %s", resp.Status)
	}
	dc, err := derp.NewClient(priv, c.conn, brw, logger.Discard)
	if err != nil {
		return nil, err
	}
	c.transport = dc
	if err := c.awaitInfo(); err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Time{})
	return c, nil
}

// awaitInfo reads up to ServerInfo: only then has the relay registered the client.
func (c *client) awaitInfo() error {
	m, err := c.Recv()
	if err != nil {
		return err
	}
	if _, ok := m.(derp.ServerInfoMessage); !ok {
		return errors.New("first message is not ServerInfo")
	}
	return nil
}

func (c *client) close() {
	if hc, ok := c.transport.(*derphttp.Client); ok {
		hc.Close()
	} else {
		c.conn.Close()
	}
}

// curve names the key exchange that TLS agreed on.
func (c *client) curve() string {
	if c.tls == nil {
		return "none"
	}
	return c.tls.CurveID.String()
}

// cork collects writes while held and passes them on as one.
type cork struct {
	to   net.Conn
	held bool
	buf  bytes.Buffer
}

func (k *cork) Write(p []byte) (int, error) {
	if k.held {
		return k.buf.Write(p)
	}
	return k.to.Write(p)
}

func (k *cork) release() error {
	k.held = false
	_, err := k.to.Write(k.buf.Bytes())
	k.buf.Reset()
	return err
}
