package driver_test

import (
	"testing"

	"github.com/racklet/racklet/firmware/driver"
)

func TestSectorSizeIsAPowerOfTwo(t *testing.T) {
	if driver.SectorSize&(driver.SectorSize-1) != 0 {
		t.Fatalf("sector size %d", driver.SectorSize)
	}
}
