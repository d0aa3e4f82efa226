/* Takes the place of c10::cuda::device_count(): no device, until the process says otherwise. */
static signed char devices = 0;

void pretend_devices(int number) { devices = (signed char)number; }

signed char _ZN3c104cuda12device_countEv(void) { return devices; }
