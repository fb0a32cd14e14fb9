package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pacer sleeps precisely. Go's own timers wait in epoll for whole milliseconds, so that paced senders
// would all wake together and send in bursts. A timerfd wakes its goroutine alone and within some
// 50 µs.
type pacer struct {
	fd   int
	file *os.File
}

func newPacer() (*pacer, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	return &pacer{fd, os.NewFile(uintptr(fd), "timerfd")}, nil
}

func (p *pacer) close() { p.file.Close() }

// until sleeps until t; not at all when it has passed.
func (p *pacer) until(t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return nil
	}
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}
	if err := unix.TimerfdSettime(p.fd, 0, &spec, nil); err != nil {
		return fmt.Errorf("timerfd_settime: %w", err)
	}
	var expirations [8]byte
	_, err := p.file.Read(expirations[:])
	return err
}
