package bootstrap

import (
	"context"
	"fmt"

	"github.com/racklet/racklet/firmware/wire"
	"github.com/racklet/racklet/firmware/wire/link"
)

// openLink opens the in-band line and asks the BMC a cheap question.
func openLink(ctx context.Context, commandLine string) (BMC, error) {
	line, err := link.OpenInBand(commandLine)
	if err != nil {
		return nil, err
	}
	conn := link.New(line, wire.EIDUnit, link.Options{})
	b := inband{conn}
	if _, err := b.Floors(ctx); err != nil {
		conn.Close()
		return nil, fmt.Errorf("ask the BMC: %w", err)
	}
	return b, nil
}
