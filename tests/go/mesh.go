package main

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/types/key"
)

// watchRefused: watching without the mesh key costs the connection.
func watchRefused(r *relay) error {
	c, err := derphttpWatcher(r, key.DERPMesh{})
	if err != nil {
		return nil // hung up before ServerInfo was read
	}
	return within(5*time.Second, func() error {
		for {
			m, err := c.Recv()
			if err != nil {
				return nil
			}
			if _, leak := m.(derp.PeerPresentMessage); leak {
				return errors.New("a client without the mesh key was told who is connected")
			}
		}
	})
}

func derphttpWatcher(r *relay, mesh key.DERPMesh) (*client, error) {
	return r.connect(func(c *derphttp.Client) { c.MeshKey, c.WatchConnectionChanges = mesh, true })
}

// watched connects a client, and then a watcher.
func watched(r *relay) (c, w *client, err error) {
	if c, err = r.connect(); err != nil {
		return nil, nil, err
	}
	w, err = derphttpWatcher(r, r.mesh)
	return c, w, err
}

func present(w *client, k key.NodePublic) (m derp.PeerPresentMessage, err error) {
	err = within(5*time.Second, func() error {
		m, err = expect(w, func(m derp.PeerPresentMessage) bool { return m.Key == k })
		return err
	})
	return m, err
}

// watch: a watcher learns who is there, who comes with which flags and app name, and who goes.
func watch(r *relay) error {
	before, w, err := watched(r)
	if err != nil {
		return err
	}
	m, err := present(w, before.pub)
	if err != nil {
		return fmt.Errorf("who was there: %w", err)
	}
	if !m.IPPort.IsValid() || m.Flags != derp.PeerPresentIsRegular {
		return fmt.Errorf("who was there: %+v", m)
	}
	named, err := r.connect(func(c *derphttp.Client) { c.AppName, c.IsProber = "check 1.0", true })
	if err != nil {
		return err
	}
	if m, err = present(w, named.pub); err != nil {
		return fmt.Errorf("who came: %w", err)
	}
	if m.AppName != "check 1.0" || m.Flags != derp.PeerPresentIsProber {
		return fmt.Errorf("who came: %+v", m)
	}
	named.Close()
	return within(5*time.Second, func() error {
		_, err := expect(w, func(m derp.PeerGoneMessage) bool { return m.Peer == named.pub })
		return err
	})
}

// closePeer: a mesh peer can have a client hung up on.
func closePeer(r *relay) error {
	victim, w, err := watched(r)
	if err != nil {
		return err
	}
	if _, err := present(w, victim.pub); err != nil {
		return err
	}
	if err := w.ClosePeer(victim.pub); err != nil {
		return err
	}
	if err := w.SendPing([8]byte{1}); err != nil { // ClosePeer alone leaves the frame in the library's buffer
		return err
	}
	return within(5*time.Second, func() error {
		for {
			if _, err := victim.Recv(); err != nil {
				return nil
			}
		}
	})
}

// forward: a mesh peer hands in a packet of a client that is elsewhere.
func forward(r *relay) error {
	b, w, err := watched(r)
	if err != nil {
		return err
	}
	elsewhere := key.NewNode().Public()
	pkt := randomPacket(1200)
	if err := w.ForwardPacket(elsewhere, b.pub, derp.LoanBytes(pkt)); err != nil {
		return err
	}
	return within(5*time.Second, func() error {
		got, err := expect(b, func(derp.ReceivedPacket) bool { return true })
		if err == nil && (got.Source != elsewhere || !bytes.Equal(got.Data, pkt)) {
			err = errors.New("wrong source key or bytes")
		}
		return err
	})
}
