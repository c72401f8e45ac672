//! Filter compiler of libpcap (pcap(3PCAP)), for the process that compiles filters. It is loaded at run time because libpcap
//! depends on a dozen libraries of the distribution.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use crate::ipc::BpfInstruction;
use crate::sys::option;

/// Names of the library: upstream's and Debian's.
const NAMES: [&CStr; 2] = [c"libpcap.so.1", c"libpcap.so.0.8"];
/// `DLT_EN10MB` of pcap/dlt.h.
const ETHERNET: c_int = 1;
/// Longer than any frame.
const SNAPLEN: c_int = 65_535;
/// `PCAP_ERRBUF_SIZE` of pcap/pcap.h.
const ERROR_SIZE: usize = 256;

/// Opaque `pcap_t`.
#[repr(C)]
struct Opaque([u8; 0]);

/// `struct bpf_insn` of pcap/bpf.h.
#[repr(C)]
struct Instruction {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// `struct bpf_program` of pcap/bpf.h.
#[repr(C)]
struct Program {
    length: c_uint,
    instructions: *mut Instruction,
}

type OpenLive = unsafe extern "C" fn(*const c_char, c_int, c_int, c_int, *mut c_char) -> *mut Opaque;
type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut Opaque;
type Compile = unsafe extern "C" fn(*mut Opaque, *mut Program, *const c_char, c_int, u32) -> c_int;
type GetError = unsafe extern "C" fn(*mut Opaque) -> *mut c_char;
type FreeCode = unsafe extern "C" fn(*mut Program);
type FileNo = unsafe extern "C" fn(*mut Opaque) -> c_int;
type Close = unsafe extern "C" fn(*mut Opaque);

/// The loaded library. It is never unloaded.
pub struct Libpcap {
    open_live: OpenLive,
    open_dead: OpenDead,
    compile: Compile,
    get_error: GetError,
    free_code: FreeCode,
    file_no: FileNo,
    close: Close,
}

/// A handle that compiles filters.
pub struct Capture<'a> {
    library: &'a Libpcap,
    pcap: NonNull<Opaque>,
}

impl Libpcap {
    /// Loads the library.
    ///
    /// # Errors
    /// Message of the loader.
    pub fn load() -> Result<Self, String> {
        // SAFETY: the names end with NUL; libpcap's constructors need nothing of us.
        let open = |name: &&CStr| NonNull::new(unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) });
        let Some(library) = NAMES.iter().find_map(open) else { return Err(loader_error()) };
        // SAFETY: each of these functions has been what its type says since libpcap 0.6, in pcap/pcap.h.
        unsafe {
            Ok(Self {
                open_live: std::mem::transmute::<NonNull<c_void>, OpenLive>(function(library, c"pcap_open_live")?),
                open_dead: std::mem::transmute::<NonNull<c_void>, OpenDead>(function(library, c"pcap_open_dead")?),
                compile: std::mem::transmute::<NonNull<c_void>, Compile>(function(library, c"pcap_compile")?),
                get_error: std::mem::transmute::<NonNull<c_void>, GetError>(function(library, c"pcap_geterr")?),
                free_code: std::mem::transmute::<NonNull<c_void>, FreeCode>(function(library, c"pcap_freecode")?),
                file_no: std::mem::transmute::<NonNull<c_void>, FileNo>(function(library, c"pcap_fileno")?),
                close: std::mem::transmute::<NonNull<c_void>, Close>(function(library, c"pcap_close")?),
            })
        }
    }

    /// Opens a handle on an interface. Filters then match VLAN tags as the kernel presents them there. Needs `CAP_NET_RAW`.
    ///
    /// # Errors
    /// Message of libpcap.
    pub fn live(&self, interface: &str) -> Result<Capture<'_>, String> {
        let interface = CString::new(interface).map_err(|_| "name with a NUL byte")?;
        let mut error: [c_char; ERROR_SIZE] = [0; ERROR_SIZE];
        // SAFETY: the name ends with NUL, and the buffer is as long as libpcap demands. Not promiscuous, no timeout: nothing is read.
        let pcap = unsafe { (self.open_live)(interface.as_ptr(), SNAPLEN, 0, 0, error.as_mut_ptr()) };
        // SAFETY: libpcap has left text that ends with NUL, at the latest in the last byte.
        let text = || unsafe { CStr::from_ptr(error.as_ptr()) }.to_string_lossy().into_owned();
        NonNull::new(pcap).map(|pcap| Capture { library: self, pcap }).ok_or_else(text)
    }

    /// Opens a handle for Ethernet without an interface.
    ///
    /// # Errors
    /// Fails if there is no memory.
    pub fn dead(&self) -> Result<Capture<'_>, String> {
        // SAFETY: two numbers.
        let pcap = NonNull::new(unsafe { (self.open_dead)(ETHERNET, SNAPLEN) });
        pcap.map(|pcap| Capture { library: self, pcap }).ok_or_else(|| "out of memory".into())
    }
}

impl Capture<'_> {
    /// Makes a live handle receive no more frames.
    ///
    /// # Errors
    /// Error of the kernel.
    pub fn hear_nothing(&self) -> io::Result<()> {
        /// `BPF_RET | BPF_K` with 0: no byte of any frame (`linux/bpf_common.h`).
        const NOTHING: BpfInstruction = BpfInstruction { code: 0x06, jt: 0, jf: 0, k: 0 };
        // SAFETY: the handle is open, and its socket stays open at least as long as it is borrowed here.
        let socket = unsafe { BorrowedFd::borrow_raw((self.library.file_no)(self.pcap.as_ptr())) };
        option::lock_filter(socket, &[NOTHING])
    }

    /// Compiles a filter (pcap-filter(7)).
    ///
    /// # Errors
    /// Message of libpcap about the filter.
    pub fn compile(&self, filter: &str) -> Result<Vec<BpfInstruction>, String> {
        const OPTIMIZE: c_int = 1;
        const NO_NETMASK: u32 = 0;
        let filter = CString::new(filter).map_err(|_| "NUL byte")?;
        let mut program = Program { length: 0, instructions: std::ptr::null_mut() };
        let pcap = self.pcap.as_ptr();
        // SAFETY: the handle is open, the text ends with NUL, and libpcap fills in the program.
        if unsafe { (self.library.compile)(pcap, &raw mut program, filter.as_ptr(), OPTIMIZE, NO_NETMASK) } != 0 {
            // SAFETY: the text is the handle's, ends with NUL, and is copied before anything else is done with the handle.
            return Err(unsafe { CStr::from_ptr((self.library.get_error)(pcap)) }.to_string_lossy().into_owned());
        }
        let one = |index| {
            // SAFETY: there are `length` instructions from there on, and no other code has them.
            let Instruction { code, jt, jf, k } = unsafe { program.instructions.add(index).read() };
            BpfInstruction { code, jt, jf, k }
        };
        let instructions = (0..program.length as usize).map(one).collect();
        // SAFETY: the program is libpcap's, and not used any more.
        unsafe { (self.library.free_code)(&raw mut program) };
        Ok(instructions)
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and this was its last use.
        unsafe { (self.library.close)(self.pcap.as_ptr()) };
    }
}

/// Looks up a function of the library.
fn function(library: NonNull<c_void>, name: &CStr) -> Result<NonNull<c_void>, String> {
    // SAFETY: the library is loaded, and stays so; the name ends with NUL.
    NonNull::new(unsafe { libc::dlsym(library.as_ptr(), name.as_ptr()) }).ok_or_else(loader_error)
}

/// Last message of the loader.
fn loader_error() -> String {
    // SAFETY: the text, if there is one, ends with NUL and is this thread's until it calls the loader again.
    let text = unsafe { libc::dlerror().as_ref().map(|text| CStr::from_ptr(text)) };
    text.map_or_else(|| "no reason given".into(), |text| text.to_string_lossy().into_owned())
}
