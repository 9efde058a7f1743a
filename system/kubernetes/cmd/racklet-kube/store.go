package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/k3s-io/kine/pkg/drivers/generic"
	_ "github.com/k3s-io/kine/pkg/drivers/sqlite" // the only driver
	"github.com/k3s-io/kine/pkg/endpoint"
	"github.com/prometheus/client_golang/prometheus"
)

// serveStore runs kine, which speaks etcd's protocol over the SQLite database in file, on a Unix
// socket until ctx ends.
func serveStore(ctx context.Context, file, socket string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	// WAL with a sync at every commit: what the API server has acknowledged survives a power cut.
	source := "sqlite://" + file + "?_journal_mode=WAL&_synchronous=FULL&_busy_timeout=30000&_txlock=immediate&_stmt_cache_size=20&cache=shared"
	var wg sync.WaitGroup
	defer wg.Wait()
	// Kine has no defaults: without these it fails or never compacts.
	_, err = endpoint.Listen(ctx, endpoint.Config{
		WaitGroup: &wg, Listener: "unix://" + socket, Endpoint: source,
		ConnectionPoolConfig: generic.ConnectionPoolConfig{MaxIdle: 0},
		MetricsRegisterer:    prometheus.NewRegistry(), EmulatedETCDVersion: "3.6.6",
		NotifyInterval: 5 * time.Second, PollInterval: time.Second, PollBatchSize: 500,
		CompactInterval: 5 * time.Minute, CompactIntervalJitter: 5, CompactTimeout: 5 * time.Second, CompactMinRetain: 1000, CompactBatchSize: 1000,
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", file, err)
	}
	<-ctx.Done()
	return nil
}
