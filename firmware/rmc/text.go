package rmc

import "strconv"

func number(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// milli spells thousandths with one decimal.
func milli(n uint32) string { return number(n/1000) + "." + string(rune('0'+n%1000/100)) }

func watts(mW uint32) string { return milli(mW) + " W" }

func degrees(m int32) string {
	if m < 0 {
		return "-" + milli(uint32(-m)) + " °C"
	}
	return milli(uint32(m)) + " °C"
}
