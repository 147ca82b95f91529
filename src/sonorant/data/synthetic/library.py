"""One private copy of the eSpeak NG library in this process, with a state that can be put back.

eSpeak NG keeps everything in global variables: one utterance at a time for each loaded copy, and what the utterance
before left behind (the phase of the flutter, the random generator, filter memories) moves the next one by a few samples.
`Library` writes back the variables of the copy (`.data` and `.bss`, 110 kB, some 10 µs) as they were after the voice was
set, so that every utterance starts from the same state, and a change of voice costs no more. Left alone are the few
variables that own memory on the heap (`_OWNERS`), which would point to what has been freed since. Where those cannot be
found (no ELF symbol table, or a version of eSpeak NG whose variables were not read through), the copy is loaded anew
instead: some milliseconds, and the same bytes.

The wheel `espeakng-loader` ships library and data; no system package, subprocess or audio device is used.
"""

import _ctypes
import ctypes
import functools
import multiprocessing.util
import os
import shutil
import struct
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from sonorant.core.errors import ConfigError, DataError, unknown_name
from sonorant.core.optional import require
from sonorant.core.seed import derive
from sonorant.data.synthetic.elf import writable_spans

__all__ = ["EVENT_END", "EVENT_PHONE", "EVENT_WORD", "Library", "languages"]

EVENT_END, EVENT_WORD, EVENT_PHONE = 0, 1, 7
_SYNCHRONOUS, _BUFFER_MS = 2, 2000
_PHONE_EVENTS, _PHONE_IPA, _NO_EXIT = 0x1, 0x2, 0x8000
_UTF8, _PHONES_IN_BRACKETS = 0x1, 0x100
_PARAMETERS = {"rate": 1, "volume": 2, "pitch": 3, "pitch_range": 4, "word_gap": 7}
_SEED = 1
_KNOWN_VERSION = "1.52"
_OWNERS = (
    "speechPlayerHandle", "translator", "translator2", "translator3", "translator2_language", "translator3_language",
    "p_decoder", "namedata", "n_namedata", "phon_out_buf", "phon_out_size", "sonicSpeedupStream", "event_list", "outbuf",
    "soundicon_tab", "n_soundicon_tab",
)  # fmt: skip
# type, id, text position, length, position in ms, sample, user data, name: the fields of espeak_EVENT.
_EVENT = struct.Struct("iIiiiiP8s")
_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

_MOST_STATES = 256
"""Voices whose state is kept, 110 kB each; a state is made again in some 0.2 ms."""

State = list[tuple[int, bytes]]
"""Address and content of each stretch of variables."""
Event = tuple[int, int, int, int, bytes]
"""(type, sample, text position from 1 in characters, length in characters, name of a phone)"""


def _put_back(state: State) -> None:
    for address, content in state:
        ctypes.memmove(address, content, len(content))


def _now(state: State) -> State:
    return [(address, ctypes.string_at(address, len(content))) for address, content in state]


class Library:
    """A loaded copy which speaks one language in any number of voices.

    Args:
        language: an eSpeak language code, such as `"en-us"` or `"fr"`.
        snapshot: put the memory back before each utterance; False loads the library anew (slower, the same bytes).

    Raises:
        MissingPackage: `espeakng-loader` is not installed.
        ConfigError: no such language.
    """

    def __init__(self, language: str, *, snapshot: bool = True):
        known = languages()
        if language.lower() not in known:
            raise ConfigError(unknown_name("eSpeak language", language, known))
        self._folder = _folder(os.getpid())
        self._language = known[language.lower()]
        self._path, self._original = self._folder.copy_of_library(), str(self._folder.library)
        self._data = str(self._folder.data).encode()
        self._snapshot = snapshot
        self._library: Any = None
        self._states: OrderedDict[str, State] = OrderedDict()
        self._audio: list[bytes] = []
        self._events: list[Event] = []
        self._error: BaseException | None = None
        self._callback = _CALLBACK(self._received)  # kept here: the library holds only a bare pointer
        self._load()

    @property
    def restores(self) -> bool:
        """Whether the memory is put back; else the library is loaded anew before each utterance."""
        return "" in self._states

    def speak(
        self, text: str, voice_file: str = "", *, phones: bool = False, **parameters: int
    ) -> tuple[bytes, list[Event]]:
        """Samples as 16-bit bytes at `sample_rate`, and the events.

        Args:
            text: what to say; with `phones`, what stands in `[[…]]` is read as eSpeak's phone mnemonics.
            voice_file: the text of an eSpeak voice variant (pitch, formants, …); empty for the language's own voice. It
                must leave the language's rules and stresses alone, for these live on the heap, outside of what is put back.
            parameters: `rate` (words a minute), `pitch`, `pitch_range` (0–100), `volume`, `word_gap` (10 ms).

        Raises:
            ConfigError: the voice file is not accepted.
            DataError: eSpeak NG failed on this text.
        """
        self._become(voice_file)
        library = self._library
        for name, value in parameters.items():
            library.espeak_SetParameter(_PARAMETERS[name], int(value), 0)
        data = text.encode()
        flags = _UTF8 | (_PHONES_IN_BRACKETS if phones else 0)
        status = library.espeak_Synth(data, len(data) + 1, 0, 1, 0, flags, None, None)
        audio, events, error = b"".join(self._audio), self._events, self._error
        self._audio, self._events, self._error = [], [], None
        if error is not None:
            raise error
        if status != 0:
            raise DataError(f"eSpeak NG could not say {text!r} (status {status})")
        return audio, events

    def phonemise(self, text: str, separator: str = "") -> str:
        """The text in IPA, words joined by spaces, phones by `separator` (one character)."""
        buffer = ctypes.create_string_buffer(text.encode() + b"\0")
        rest, clauses = ctypes.c_void_p(ctypes.addressof(buffer)), []
        while rest.value:
            mode = 0x02 | (ord(separator) << 8 if separator else 0)
            clause = self._library.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, mode) or b""
            clauses.append(clause.decode())
        return " ".join(clause for clause in clauses if clause)

    def close(self) -> None:
        """Unloads the copy."""
        self._unload()
        Path(self._path).unlink(missing_ok=True)

    def _become(self, voice_file: str) -> None:
        """Brings the library to where it is before the first utterance of a voice."""
        state = self._states.get(voice_file)
        if state is not None:
            _put_back(state)
            self._states.move_to_end(voice_file)
            return
        if self.restores:
            _put_back(self._states[""])
        else:
            self._load()
        if not voice_file:
            return
        name = f"{self._language}+{self._folder.variant(voice_file)}"
        if self._library.espeak_SetVoiceByName(name.encode()) != 0:
            raise ConfigError(f"eSpeak NG does not accept the voice file {voice_file!r}")
        self._warm_up()
        if self.restores:
            if len(self._states) > _MOST_STATES:
                oldest = next(key for key in self._states if key)
                del self._states[oldest]
            self._states[voice_file] = _now(self._states[""])

    def _warm_up(self) -> None:
        """A first utterance makes what is made on first use, and takes the command to change the voice out of the queue.

        That command owns memory which is freed when it is carried out: it must not be in a state that is put back.
        """
        self._library.espeak_Synth(b"a", 2, 0, 1, 0, _UTF8, None, None)
        self._audio, self._events, self._error = [], [], None

    def _unload(self) -> None:
        if self._library is not None:
            self._library.espeak_Terminate()
            handle, self._library = self._library._handle, None
            _ctypes.dlclose(handle)

    def _load(self) -> None:
        self._unload()
        library = self._library = ctypes.CDLL(self._path)
        library.espeak_Synth.argtypes = [
            ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint, ctypes.c_int,
            ctypes.c_uint, ctypes.c_uint, ctypes.c_void_p, ctypes.c_void_p,
        ]  # fmt: skip
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int]
        library.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        library.espeak_Info.restype = ctypes.c_char_p
        flags = _PHONE_EVENTS | _PHONE_IPA | _NO_EXIT
        self.sample_rate = int(library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, self._data, flags))
        if self.sample_rate <= 0:
            raise DataError("eSpeak NG did not start: its data folder is damaged; reinstall espeakng-loader")
        library.espeak_SetSynthCallback(self._callback)
        library.espeak_ng_SetRandSeed(_SEED)  # its own seed is the clock's second
        if library.espeak_SetVoiceByName(self._language.encode()) != 0:
            raise DataError(f"eSpeak NG has no data for {self._language}; reinstall espeakng-loader")
        self._warm_up()
        spans = self._variables() if self._snapshot else None
        if spans is not None:
            self._states = OrderedDict({"": [(address, ctypes.string_at(address, size)) for address, size in spans]})

    def _variables(self) -> tuple[tuple[int, int], ...] | None:
        """Where the library's variables are, or None where putting them back is not known to be safe."""
        version = (self._library.espeak_Info(None) or b"").decode("ascii", "replace")
        if not version.startswith(_KNOWN_VERSION):
            return None
        return writable_spans(self._library, "espeak_Synth", self._path, _OWNERS, self._original)

    def _received(self, samples: Any, count: int, events: int) -> int:
        try:
            if samples and count > 0:
                self._audio.append(ctypes.string_at(samples, 2 * count))
            position = events
            while True:
                kind, _, text, length, _, sample, _, name = _EVENT.unpack(ctypes.string_at(position, _EVENT.size))
                if kind == EVENT_END:
                    return 0
                self._events.append((kind, sample, text, length, name.partition(b"\0")[0]))
                position += _EVENT.size
        except BaseException as error:  # an exception cannot cross the C frames
            self._error = error
            return 1


class _Folder:
    """A data folder of this process: eSpeak's own data behind links, and beside them the voices made here."""

    def __init__(self) -> None:
        loader = require("espeakng_loader", extra="synthetic", purpose="for the synthetic corpus")
        source = Path(loader.get_data_path())
        if source.name != "espeak-ng-data" and (source / "espeak-ng-data").is_dir():
            source = source / "espeak-ng-data"
        self.library = Path(loader.get_library_path())
        self.root = Path(tempfile.mkdtemp(prefix="sonorant-espeak-"))
        self.data = self.root / "espeak-ng-data"
        self.variants = self.data / "voices" / "!v"
        self.variants.mkdir(parents=True)
        for entry in source.iterdir():
            if entry.name != "voices":
                (self.data / entry.name).symlink_to(entry)
        self.lang = source / "lang"

    def variant(self, text: str) -> str:
        """The name under which eSpeak finds this voice file."""
        name = f"v{derive(0, text):016x}"
        path = self.variants / name
        if not path.exists():
            path.write_text(f"language variant\nname {name}\n{text}", encoding="utf-8")
        return name

    def copy_of_library(self) -> str:
        """The loader knows a library by its file, so each loaded copy needs a file of its own."""
        handle, path = tempfile.mkstemp(suffix=".so", dir=self.root)
        os.close(handle)
        return shutil.copyfile(self.library, path)


@functools.lru_cache(maxsize=1)
def _folder(pid: int) -> _Folder:
    """The folder of this process; a forked child makes its own, for its parent will remove the one it knew."""
    folder = _Folder()

    def remove() -> None:
        if os.getpid() == pid:
            shutil.rmtree(folder.root, ignore_errors=True)

    # Run at the end of a worker process too, which atexit is not.
    multiprocessing.util.Finalize(None, remove, exitpriority=10)
    return folder


@functools.cache
def _languages() -> dict[str, str]:
    root = _folder(os.getpid()).lang
    found: dict[str, str] = {}
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        identifier = path.relative_to(root).as_posix()
        codes = [line.split()[1] for line in path.read_text("utf-8").splitlines() if line.startswith("language ")]
        for code in [path.name, *codes]:
            found.setdefault(code.lower(), identifier)
    found["en"] = found["en-us"]  # one English everywhere in this package
    return found


def languages() -> dict[str, str]:
    """The codes of the languages that eSpeak NG speaks, in lower case → the identifier of its voice."""
    return _languages()
