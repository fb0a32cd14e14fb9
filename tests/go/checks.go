package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

var checks = []check{
	{name: "greeting", run: greeting}, {name: "sizes", run: sizes},
	{name: "order", run: order}, {name: "to-self", run: toSelf},
	{name: "ping", run: ping}, {name: "note-preferred", run: notePreferred},
	{name: "peer-gone", run: peerGone}, {name: "not-here", run: notHere},
	{name: "silent-drop", run: silentDrop}, {name: "duplicates", run: duplicates},
	{name: "stalled-receiver", run: stalledReceiver}, {name: "prober-window", run: proberWindow},
	{name: "watch-refused", needs: watching, run: watchRefused},
	{name: "watch", needs: watching | meshKeyed, run: watch},
	{name: "close-peer", needs: watching | meshKeyed, run: closePeer},
	{name: "forward", needs: watching | meshKeyed, run: forward},
}

// greeting: the relay proves the key that it was started with. Over TLS 1.3 its certificate has the same key.
func greeting(r *relay) error {
	c, err := r.connect()
	if err != nil {
		return err
	}
	if *serverKey != "" && c.ServerPublicKey().UntypedHexString() != *serverKey {
		return fmt.Errorf("server key is %s", c.ServerPublicKey().UntypedHexString())
	}
	state, ok := c.TLSConnectionState()
	if *transport == "tls13" {
		if !ok || metaKey(state) != c.ServerPublicKey().UntypedHexString() {
			return errors.New("no fast-start certificate with the relay's key")
		}
	}
	return nil
}

func randomPacket(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// pass sends pkt from a to b and compares what arrives.
func pass(a, b *client, pkt []byte) error {
	if err := a.Send(b.pub, pkt); err != nil {
		return err
	}
	return within(5*time.Second, func() error {
		got, err := expect(b, func(derp.ReceivedPacket) bool { return true })
		if err != nil {
			return err
		}
		if got.Source != a.pub {
			return errors.New("wrong source key")
		}
		if !bytes.Equal(got.Data, pkt) {
			return fmt.Errorf("%d bytes arrived for %d, or others", len(got.Data), len(pkt))
		}
		return nil
	})
}

// largest is the size of the largest packet to check. A WebSocket client's library refuses messages above 32 KiB, which
// the reference sends. So over WebSocket a packet has to fit in one message.
func largest() int {
	if *transport == "websocket" {
		return 32<<10 - 37
	}
	return derp.MaxPacketSize
}

func sizes(r *relay) error {
	a, b, err := r.two()
	if err != nil {
		return err
	}
	for _, n := range []int{0, 1, 61, 62, 1200, 1400, 4059, 4060, 16384, largest()} {
		if err := pass(a, b, randomPacket(n)); err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
		if err := pass(b, a, randomPacket(n)); err != nil {
			return fmt.Errorf("%d bytes back: %w", n, err)
		}
	}
	return nil
}

// order: packets between one pair arrive in the order in which they were sent.
func order(r *relay) error {
	a, b, err := r.two()
	if err != nil {
		return err
	}
	const rounds, burst = 100, 16 // a burst stays below the reference's queue depth, so none may be lost
	for round := range rounds {
		for i := range burst {
			if err := a.Send(b.pub, []byte{byte(round), byte(i)}); err != nil {
				return err
			}
		}
		err := within(5*time.Second, func() error {
			for i := range burst {
				got, err := expect(b, func(derp.ReceivedPacket) bool { return true })
				if err != nil {
					return err
				}
				if !bytes.Equal(got.Data, []byte{byte(round), byte(i)}) {
					return fmt.Errorf("%v came as number %d of round %d", got.Data, i, round)
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func toSelf(r *relay) error {
	a, err := r.connect()
	if err != nil {
		return err
	}
	return pass(a, a, []byte("to myself"))
}

func ping(r *relay) error {
	a, err := r.connect()
	if err != nil {
		return err
	}
	for _, data := range [][8]byte{{1, 2, 3, 4, 5, 6, 7, 8}, {}} {
		if err := a.SendPing(data); err != nil {
			return err
		}
		err := within(3*time.Second, func() error {
			_, err := expect(a, func(m derp.PongMessage) bool { return m == derp.PongMessage(data) })
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// notePreferred is statistics only: the connection must just live on.
func notePreferred(r *relay) error {
	a, b, err := r.two()
	if err != nil {
		return err
	}
	a.NotePreferred(true)
	a.NotePreferred(false)
	return pass(a, b, []byte("still here"))
}

// peerGone: when the last connection of a key ends, the clients that got packets from it get PeerGone. Others do not.
func peerGone(r *relay) error {
	a, b, bystander, err := r.three()
	if err != nil {
		return err
	}
	if err := pass(a, b, []byte("hello")); err != nil {
		return err
	}
	a.Close()
	err = within(5*time.Second, func() error {
		gone, err := expect(b, func(m derp.PeerGoneMessage) bool { return m.Peer == a.pub })
		if err == nil && gone.Reason != derp.PeerGoneReasonDisconnected {
			err = fmt.Errorf("reason %v", gone.Reason)
		}
		return err
	})
	if err != nil {
		return err
	}
	return quiet[derp.PeerGoneMessage](bystander, 200*time.Millisecond)
}

// disco is the smallest packet that looks like a disco message: magic, 32-byte key, 24-byte nonce.
func disco() []byte { return append([]byte("TS💬"), randomPacket(56)...) }

// notHere: disco packets to an unknown key are answered, three at once.
func notHere(r *relay) error {
	a, err := r.connect()
	if err != nil {
		return err
	}
	nobody := key.NewNode().Public()
	for range 10 {
		if err := a.Send(nobody, disco()); err != nil {
			return err
		}
	}
	err = within(5*time.Second, func() error {
		for range 3 {
			_, err := expect(a, func(m derp.PeerGoneMessage) bool {
				return m.Peer == nobody && m.Reason == derp.PeerGoneReasonNotHere
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return quiet[derp.PeerGoneMessage](a, 300*time.Millisecond)
}

// silentDrop: other packets to an unknown key are dropped without a word.
func silentDrop(r *relay) error {
	a, err := r.connect()
	if err != nil {
		return err
	}
	if err := a.Send(key.NewNode().Public(), disco()[:61]); err != nil {
		return err
	}
	return quiet[derp.PeerGoneMessage](a, 300*time.Millisecond)
}

// duplicates: of two connections with one key the newer receives, until the older one sends something.
func duplicates(r *relay) error {
	k := key.NewNode()
	older, err := r.connectAs(k)
	if err != nil {
		return err
	}
	newer, err := r.connectAs(k)
	if err != nil {
		return err
	}
	b, err := r.connect()
	if err != nil {
		return err
	}
	if err := pass(b, newer, []byte("to the newer")); err != nil {
		return fmt.Errorf("newer: %w", err)
	}
	if err := pass(older, b, []byte("older speaks")); err != nil {
		return err
	}
	if err := pass(b, older, []byte("to the older")); err != nil {
		return fmt.Errorf("older after it spoke: %w", err)
	}
	newer.Close()
	time.Sleep(100 * time.Millisecond)
	if err := pass(b, older, []byte("to the one that is left")); err != nil {
		return fmt.Errorf("after the newer left: %w", err)
	}
	return quiet[derp.PeerGoneMessage](b, 200*time.Millisecond)
}

// stalledReceiver: a client that reads nothing holds up neither its senders nor other clients.
func stalledReceiver(r *relay) error {
	a, b, stalled, err := r.three()
	if err != nil {
		return err
	}
	pkt := randomPacket(largest())
	err = within(10*time.Second, func() error {
		for range 400 {
			if err := a.Send(stalled.pub, pkt); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("sender: %w", err)
	}
	if err := pass(a, b, []byte("past the stalled one")); err != nil {
		return err
	}
	return pass(b, a, []byte("and back"))
}

// proberWindow: the bandwidth prober keeps 30 packets of the largest size under way and takes any loss for a fault.
func proberWindow(r *relay) error {
	a, b, err := r.two()
	if err != nil {
		return err
	}
	const total, window = 200, 30
	pkt := randomPacket(largest())
	slots := make(chan struct{}, window)
	sendErr := make(chan error, 1)
	go func() {
		for range total {
			slots <- struct{}{}
			if err := a.Send(b.pub, pkt); err != nil {
				sendErr <- err
				return
			}
		}
	}()
	return within(15*time.Second, func() error {
		for n := range total {
			select {
			case err := <-sendErr:
				return err
			default:
			}
			if _, err := expect(b, func(p derp.ReceivedPacket) bool { return bytes.Equal(p.Data, pkt) }); err != nil {
				return fmt.Errorf("packet %d: %w", n, err)
			}
			<-slots
		}
		return nil
	})
}
