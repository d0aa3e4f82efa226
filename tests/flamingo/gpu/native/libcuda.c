/* A driver in which every call fails, and no device has a context. Its names are those that
   libcaffe2_nvrtc.so asks for. */
enum { ERROR_NO_DEVICE = 100 };

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
  *flags = 0;
  *active = 0;
  return 0;
}

#define FAILS(name) \
  int name(void) { return ERROR_NO_DEVICE; }

FAILS(cuCtxGetCurrent)
FAILS(cuCtxSetCurrent)
FAILS(cuDeviceGet)
FAILS(cuDeviceGetAttribute)
FAILS(cuDevicePrimaryCtxRetain)
FAILS(cuFuncGetAttribute)
FAILS(cuFuncSetAttribute)
FAILS(cuFuncSetCacheConfig)
FAILS(cuGetErrorString)
FAILS(cuLaunchCooperativeKernel)
FAILS(cuLaunchKernel)
FAILS(cuLinkAddData_v2)
FAILS(cuLinkComplete)
FAILS(cuLinkCreate_v2)
FAILS(cuModuleGetFunction)
FAILS(cuModuleLoad)
FAILS(cuModuleLoadData)
FAILS(cuModuleLoadDataEx)
FAILS(cuModuleUnload)
FAILS(cuOccupancyMaxActiveBlocksPerMultiprocessor)
FAILS(cuPointerGetAttribute)
FAILS(cuTensorMapEncodeTiled)
