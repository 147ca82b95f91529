"""Which function of lhotse prepares which corpus, and what it is called with: one line a corpus.

`source` is the argument that takes the folder the user names; `needs` are arguments without a default that the user gives as
options; `output` is where the function writes its own manifests. Other arguments of the function are options too, found
in its signature. Licences are in the words of the corpora's own pages; read those before you rely on them.
"""

from dataclasses import dataclass

__all__ = ["INTERNAL", "RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One recipe of lhotse."""

    module: str
    """Module in `lhotse.recipes`."""
    function: str
    licence: str = ""
    """Terms of use; empty where not known here."""
    source: str = "corpus_dir"
    """Argument that takes the source folder (or file)."""
    needs: tuple[str, ...] = ()
    """Further arguments that must be given as options."""
    output: str = "output_dir"
    """Argument that takes the folder for its manifests."""
    many: bool = False
    """The source argument takes a list of folders."""
    manifests: str = ""
    """Argument that names a folder of lhotse's own manifests, where the recordings must be taken from."""


_LDC = "LDC user agreement"
_BY, _BY_SA = "CC BY 4.0", "CC BY-SA 4.0"
_BY_NC, _BY_NC_ND = "CC BY-NC 4.0", "CC BY-NC-ND 4.0"
_APACHE = "Apache-2.0"

RECIPES: dict[str, Recipe] = {
    "adept": Recipe("adept", "prepare_adept"),
    "aidatatang_200zh": Recipe("aidatatang_200zh", "prepare_aidatatang_200zh", _BY_NC_ND),
    "aishell": Recipe("aishell", "prepare_aishell", _APACHE),
    "aishell2": Recipe("aishell2", "prepare_aishell2", "AISHELL-2 agreement, academic use"),
    "aishell3": Recipe("aishell3", "prepare_aishell3", _APACHE),
    "aishell4": Recipe("aishell4", "prepare_aishell4", _BY_SA),
    "ali_meeting": Recipe("ali_meeting", "prepare_ali_meeting", _BY_SA),
    "ami": Recipe("ami", "prepare_ami", _BY, source="data_dir"),
    "aspire": Recipe("aspire", "prepare_aspire", _LDC),
    "atcosim": Recipe("atcosim", "prepare_atcosim"),
    "audio_mnist": Recipe("audio_mnist", "prepare_audio_mnist", "MIT"),
    "babel": Recipe("babel", "prepare_single_babel_language", _LDC),
    "baker_zh": Recipe("baker_zh", "prepare_baker_zh", "non-commercial use only"),
    "bengaliai_speech": Recipe("bengaliai_speech", "prepare_bengaliai_speech"),
    "broadcast_news": Recipe(
        "broadcast_news", "prepare_broadcast_news", _LDC, source="audio_dir", needs=("transcripts_dir",)
    ),
    "but_reverb_db": Recipe("but_reverb_db", "prepare_but_reverb_db", _BY),
    "bvcc": Recipe("bvcc", "prepare_bvcc"),
    "callhome_egyptian": Recipe(
        "callhome_egyptian", "prepare_callhome_egyptian", _LDC, source="audio_dir", needs=("transcript_dir",)
    ),
    "callhome_english": Recipe("callhome_english", "prepare_callhome_english", _LDC, source="audio_dir"),
    "callhome_english_asr": Recipe(
        "callhome_english", "prepare_callhome_english_asr", _LDC, source="audio_dir", needs=("transcript_dir",)
    ),
    "callhome_english_sre": Recipe("callhome_english", "prepare_callhome_english_sre", _LDC, source="audio_dir"),
    "cdsd": Recipe("cdsd", "prepare_cdsd"),
    "chime6": Recipe("chime6", "prepare_chime6", _BY_SA),
    "cmu_arctic": Recipe("cmu_arctic", "prepare_cmu_arctic", "free use with attribution (CMU)"),
    "cmu_indic": Recipe("cmu_indic", "prepare_cmu_indic", "free use with attribution (CMU)"),
    "cmu_kids": Recipe("cmu_kids", "prepare_cmu_kids", _LDC),
    "commonvoice": Recipe("commonvoice", "prepare_commonvoice", "CC0 1.0"),
    "csj": Recipe("csj", "prepare_csj", "NINJAL licence", output="manifest_dir"),
    "cslu_kids": Recipe("cslu_kids", "prepare_cslu_kids", _LDC),
    "daily_talk": Recipe("daily_talk", "prepare_daily_talk", _BY_SA),
    "dihard3": Recipe("dihard3", "prepare_dihard3", _LDC, source="dev_audio_dir", needs=("eval_audio_dir",)),
    "dipco": Recipe("dipco", "prepare_dipco", "CDLA-Permissive-1.0"),
    "earnings21": Recipe("earnings21", "prepare_earnings21", _BY_SA),
    "earnings22": Recipe("earnings22", "prepare_earnings22", _BY_SA),
    "ears": Recipe("ears", "prepare_ears", _BY_NC),
    "edacc": Recipe("edacc", "prepare_edacc"),
    "emilia": Recipe("emilia", "prepare_emilia", _BY_NC, needs=("lang",)),
    "eval2000": Recipe("eval2000", "prepare_eval2000", _LDC),
    "fisher_english": Recipe("fisher_english", "prepare_fisher_english", _LDC),
    "fisher_spanish": Recipe(
        "fisher_spanish", "prepare_fisher_spanish", _LDC, source="audio_dir_path", needs=("transcript_dir_path",)
    ),
    "fleurs": Recipe("fleurs", "prepare_fleurs", _BY),
    "gale_arabic": Recipe(
        "gale_arabic", "prepare_gale_arabic", _LDC, source="audio_dirs", needs=("transcript_dirs",), many=True
    ),
    "gale_mandarin": Recipe(
        "gale_mandarin", "prepare_gale_mandarin", _LDC, source="audio_dirs", needs=("transcript_dirs",), many=True
    ),
    "gigaspeech": Recipe("gigaspeech", "prepare_gigaspeech", "GigaSpeech terms, non-commercial research"),
    "gigaspeech2": Recipe("gigaspeech2", "prepare_gigaspeech2", "GigaSpeech 2 terms, non-commercial research"),
    "gigast": Recipe("gigast", "prepare_gigast", needs=("manifests_dir",), manifests="manifests_dir"),
    "grid": Recipe("grid", "prepare_grid", _BY),
    "heroico": Recipe("heroico", "prepare_heroico", _LDC, source="speech_dir", needs=("transcript_dir",)),
    "hifitts": Recipe("hifitts", "prepare_hifitts", _BY),
    "himia": Recipe("himia", "prepare_himia", _APACHE),
    "icmcasr": Recipe("icmcasr", "prepare_icmcasr"),
    "icsi": Recipe("icsi", "prepare_icsi", _BY, source="audio_dir"),
    "iwslt22_ta": Recipe("iwslt22_ta", "prepare_iwslt22_ta", _LDC, needs=("splits",)),
    "kespeech": Recipe("kespeech", "prepare_kespeech", "KeSpeech agreement, academic use"),
    "ksponspeech": Recipe("ksponspeech", "prepare_ksponspeech", "AI Hub terms"),
    "l2_arctic": Recipe("l2_arctic", "prepare_l2_arctic", _BY_NC),
    "libricss": Recipe("libricss", "prepare_libricss", _BY),
    "librilight": Recipe("librilight", "prepare_librilight", "public domain (LibriVox)"),
    "librimix": Recipe(
        "librimix",
        "prepare_librimix",
        "CC BY 4.0 (LibriSpeech); CC BY-NC 4.0 (WHAM! noise)",
        source="librispeech_root_path",
        needs=("wham_recset_root_path", "librimix_metadata_path", "workdir"),
    ),
    "librimix_mini": Recipe("librimix_mini", "prepare_librimix_mini", _BY, source="librimix_csv"),
    "librispeech": Recipe("librispeech", "prepare_librispeech", _BY),
    "librispeechmix": Recipe(
        "librispeechmix",
        "prepare_librispeechmix",
        _BY,
        source="librispeech_root_path",
        needs=("librispeechmix_metadata_path",),
    ),
    "libritts": Recipe("libritts", "prepare_libritts", _BY),
    "librittsr": Recipe("libritts", "prepare_librittsr", _BY),
    "ljspeech": Recipe("ljspeech", "prepare_ljspeech", "public domain"),
    "magicdata": Recipe("magicdata", "prepare_magicdata", _BY_NC_ND),
    "mdcc": Recipe("mdcc", "prepare_mdcc"),
    "medical": Recipe("medical", "prepare_medical"),
    "mgb2": Recipe("mgb2", "prepare_mgb2"),
    "mls": Recipe("mls", "prepare_mls", _BY),
    "mobvoihotwords": Recipe("mobvoihotwords", "prepare_mobvoihotwords"),
    "mtedx": Recipe("mtedx", "prepare_mtedx", _BY_NC_ND),
    "musan": Recipe("musan", "prepare_musan", "CC BY 4.0 and public domain"),
    "must_c": Recipe("must_c", "prepare_must_c", _BY_NC_ND, needs=("tgt_lang",)),
    "notsofar1": Recipe("notsofar1", "prepare_notsofar1", _BY),
    "nsc": Recipe("nsc", "prepare_nsc", "Singapore Open Data Licence"),
    "oto_speech": Recipe("oto_speech", "prepare_oto_speech"),
    "peoples_speech": Recipe("peoples_speech", "prepare_peoples_speech", "CC BY-SA and CC BY 4.0"),
    "primewords": Recipe("primewords", "prepare_primewords", _BY_NC_ND),
    "radio": Recipe("radio", "prepare_radio"),
    "reazonspeech": Recipe("reazonspeech", "prepare_reazonspeech", "CDLA-Sharing-1.0"),
    "rir_noise": Recipe("rir_noise", "prepare_rir_noise", _APACHE),
    "sbcsae": Recipe("sbcsae", "prepare_sbcsae", "CC BY-ND 3.0 US"),
    "slu": Recipe("slu", "prepare_slu", "Fluent Speech Commands licence, academic use"),
    "spatial_librispeech": Recipe("spatial_librispeech", "prepare_spatial_librispeech"),
    "speechcommands": Recipe("speechcommands", "prepare_speechcommands", _BY, needs=("speechcommands_version",)),
    "speechio": Recipe("speechio", "prepare_speechio"),
    "spgispeech": Recipe("spgispeech", "prepare_spgispeech", "Kensho agreement, non-commercial"),
    "stcmds": Recipe("stcmds", "prepare_stcmds", _BY_NC_ND),
    "switchboard": Recipe("switchboard", "prepare_switchboard", _LDC, source="audio_dir"),
    "tal_asr": Recipe("tal_asr", "prepare_tal_asr"),
    "tal_csasr": Recipe("tal_csasr", "prepare_tal_csasr"),
    "tedlium": Recipe("tedlium", "prepare_tedlium", "CC BY-NC-ND 3.0", source="tedlium_root"),
    "tedlium2": Recipe("tedlium2", "prepare_tedlium2", "CC BY-NC-ND 3.0", source="tedlium_root"),
    "thchs_30": Recipe("thchs_30", "prepare_thchs_30", _APACHE),
    "this_american_life": Recipe("this_american_life", "prepare_this_american_life"),
    # "timit" is our own importer, which keeps the words and reads any folder of that layout; this one folds phones.
    "timit_lhotse": Recipe("timit", "prepare_timit", _LDC),
    "uwb_atcc": Recipe("uwb_atcc", "prepare_uwb_atcc"),
    "vctk": Recipe("vctk", "prepare_vctk", _BY),
    "voxceleb": Recipe("voxceleb", "prepare_voxceleb", _BY, source="voxceleb1_root"),
    "voxconverse": Recipe("voxconverse", "prepare_voxconverse", _BY),
    "voxpopuli": Recipe("voxpopuli", "prepare_voxpopuli", "CC0 1.0"),
    "wenet_speech": Recipe("wenet_speech", "prepare_wenet_speech", "CC BY 4.0, non-commercial by its authors' note"),
    "wenetspeech4tts": Recipe("wenetspeech4tts", "prepare_wenetspeech4tts"),
    "wham": Recipe("wham", "prepare_wham", _BY_NC),
    "xbmu_amdo31": Recipe("xbmu_amdo31", "prepare_xbmu_amdo31", _BY_SA),
    "yesno": Recipe("yesno", "prepare_yesno"),
}

# Functions of lhotse's recipe modules named `prepare_…` that are parts of one above and no corpus of their own.
INTERNAL: frozenset[tuple[str, str]] = frozenset(
    [
        *((module, f"prepare_audio_{part}") for module in ("ami", "icsi") for part in ("grouped", "single")),
        *((module, f"prepare_supervision_{part}") for module in ("ami", "icsi") for part in ("ihm", "other")),
        ("csj", "prepare_manifests"),
        ("fleurs", "prepare_single_fleurs_language"),
        ("hifitts", "prepare_single_partition"),
        ("mtedx", "prepare_single_mtedx_language"),
        ("musan", "prepare_music"),
        *(("nsc", f"prepare_part{part}") for part in range(1, 7)),
        ("nsc", "prepare_textgrid_based_part"),
        ("this_american_life", "prepare_this_american_life_subset"),
        ("timit", "prepare_recording"),
    ]
)
