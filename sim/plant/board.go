package plant

// Board is a kind of unit: its power and how it sheds heat.
type Board struct {
	Idle    float64 // W, running, nothing to do
	Dynamic float64 // W more with every core busy
	IO      float64 // W more with network and disk busy
	Halted  float64 // W with the rail good and the machine held in reset or halted
	SoC     float64 // share of all that which the SoC turns to heat
	Sink    float64 // K/W from SoC to still tray air
	Farads  float64 // input capacitance
}

// Pi4 and Pi5 are Raspberry Pi boards.
//
// Power: Pi 4 B idle 540 mA (2.7 W), all cores busy 1280 mA (6.4 W): Raspberry Pi Dramble, "Power Consumption
// Benchmarks". Pi 5: idle about 3.0 W, all cores busy about 8.8 W, of a supply rated 5 A; Raspberry Pi documentation,
// "Typical power requirements", gives 600 mA (Pi 4) and 800 mA (Pi 5) as typical bare-board currents, which lie in
// between. Network and disk: 0.9 and 1.5 W (ours).
//
// Heat: a bare Pi 4 settles near its throttling point under full load in still air at room temperature, some 55 K over
// about 5 W; with the small heat sinks of the trays we take three quarters of that, and a Pi 5 carries a larger one (ours).
var (
	Pi4 = Board{Idle: 2.7, Dynamic: 3.7, IO: 0.9, Halted: 1.2, SoC: 0.75, Sink: 8.5, Farads: 470e-6}
	Pi5 = Board{Idle: 3.0, Dynamic: 5.8, IO: 1.5, Halted: 1.6, SoC: 0.75, Sink: 6, Farads: 470e-6}
)

// Soft throttling: from 80 °C on the ARM cores are slowed down progressively, at 85 °C fully (Raspberry Pi
// documentation, "Frequency management and thermal control").
const (
	throttleFrom = 80.0
	throttleFull = 85.0
	throttleMost = 0.65 // share of the dynamic power that full throttling saves (ours: 1.5 GHz to 600 MHz)
)

// demand is what the board would draw from a good rail.
func (b *Board) demand(a Activity, soc float64) float64 {
	if !a.Running {
		return b.Halted
	}
	slow := throttleMost * share((soc-throttleFrom)/(throttleFull-throttleFrom))
	return b.Idle + b.Dynamic*a.CPU*(1-slow) + b.IO*a.IO
}
